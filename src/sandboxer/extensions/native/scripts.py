"""The words that run host/*.sh. Pure: what varies is an argument, never a part of the shell text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sandboxer.extensions.native.handle import FIRST_UID, PATH, NativeHandleData, SandboxPaths, suffix
from sandboxer.extensions.native.host_facts import HostFacts
from sandboxer.extensions.native.start_file import script

SHELL: Final = "/bin/sh"
"""Not by PATH: the first `sh` there may lie in somebody's home."""

_PLACED: Final = ("common", "restart", "place")
_SHORT_LOG: Final = 1 << 20
_LONG_LINE: Final = 1 << 10
_LONGEST_LOG: Final = 1 << 30
"""So many bytes of a log are looked through for its last lines: the first, and the second for each of them, at most the
third. What runs inside may make a log of TiB without a single end of a line."""


def _words(name: str, *arguments: str, parts: Sequence[str] = ("common",)) -> list[str]:
    text = "".join(script(part) for part in (*parts, name))
    return [SHELL, "-c", text, name, *arguments]


def claim(paths: SandboxPaths, marker: str) -> list[str]:
    """Says what the host has, and makes the directory with its marker."""
    return _words("claim", paths.work_dir, paths.name, marker, parts=())


def facts() -> list[str]:
    """Says what the host has."""
    return _words("claim", "", "", "", parts=())


def probe(facts: HostFacts, bwrap: str) -> list[str]:
    """Makes the namespaces of a sandbox, by the uid that it would have, and does nothing in them."""
    words = [bwrap, "--unshare-user", "--unshare-pid", "--unshare-net", "--disable-userns", "--cap-drop", "ALL"]
    words += ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/lib64", "/lib64", "--ro-bind-try", "/lib", "/lib"]
    words += ["--proc", "/proc", "--dev", "/dev", "--", "/usr/bin/env"]
    if not facts.root:
        return [facts.tools["unshare"], "--user", "--map-root-user", *words]
    nobody = str(FIRST_UID)
    drop = [facts.tools["setpriv"], "--reuid", nobody, "--regid", nobody, "--clear-groups", "--no-new-privs"]
    return [facts.tools["unshare"], "--mount", "--propagation", "private", *drop, *words]


def start(paths: SandboxPaths, *, owners: bool) -> list[str]:
    """Keeps the start file and the guard, of which it reads an archive from stdin with the folders, and runs the start
    file. `owners`: the archive says to whom they belong (for root)."""
    tar = f"tar -x -p {'' if owners else '-o '}-f -"
    keep = f'PATH={PATH}:$PATH; umask 077; cd -- "$1" && {tar} && cd / && set -- first && . "$0"'
    return [SHELL, "-c", keep, paths.start_file, paths.directory]


def look(paths: SandboxPaths) -> list[str]:
    """Tells running, stopped, ended, absent or unknown."""
    return _words("look", paths.work_dir, paths.name, paths.tag, str(paths.owner))


def roots(work_dir: str, names: Sequence[str]) -> list[str]:
    """Tells the first process of each sandbox that runs."""
    return _words("roots", work_dir, *names)


def inventory(work_dir: str, install: str) -> list[str]:
    """Tells every sandbox below the work directory."""
    return _words("list", work_dir, suffix(work_dir, install))


def end(paths: SandboxPaths) -> list[str]:
    """Frees everything and tells what is left."""
    return _words(
        "end", paths.work_dir, paths.name, paths.tag, str(paths.owner), paths.install, parts=("common", "place")
    )


def stop(sandbox: NativeHandleData, *, token: str, grace: float) -> list[str]:
    """Ends what runs inside, by what the header on stdin says and after at most `grace` seconds by force, and keeps it
    from being started."""
    paths = sandbox.paths
    arguments = (paths.work_dir, paths.name, paths.tag, str(sandbox.owner), paths.install, token, _hundredths(grace))
    return _words("stop", *arguments, parts=_PLACED)


def ask_to_end(grace: float) -> list[str]:
    """Inside: asks everything to end, and waits for that."""
    return [SHELL, "-c", script("grace"), "grace", _hundredths(grace)]


def again(sandbox: NativeHandleData) -> list[str]:
    """Starts it again."""
    paths = sandbox.paths
    arguments = (paths.work_dir, paths.name, paths.tag, str(sandbox.owner), paths.install, sandbox.start)
    return _words("again", *arguments, parts=_PLACED)


def _hundredths(seconds: float) -> str:
    return str(int(seconds * 100))


def enter(sandbox: NativeHandleData, *, token: str, header: str = "-") -> list[str]:
    """Runs inside, under the sandbox's limits, what the header says that comes on stdin or is in a file."""
    paths = sandbox.paths
    return _words(
        "enter",
        paths.directory,
        paths.tag,
        str(sandbox.owner),
        token,
        sandbox.start,
        " ".join(sandbox.cgroups),
        header,
        *sandbox.limits,
        parts=("common", "restart"),
    )


def tail(paths: SandboxPaths, services: Sequence[str], *, lines: int | None, follow: bool) -> list[str]:
    """Shows logs. The files are mounted one by one inside, so none can be a link to something else."""
    files = [paths.path(f"logs/{name}.log") for name in services]
    if lines is None:
        return _words("logs", "", "yes" if follow else "", "", *files, parts=())
    most = min(_SHORT_LOG + lines * _LONG_LINE, _LONGEST_LOG)
    return _words("logs", str(lines), "yes" if follow else "", str(most), *files, parts=())
