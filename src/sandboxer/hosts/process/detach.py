"""Starting a program on this machine that outlives us and has nothing of ours."""

from __future__ import annotations

import _thread
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from sandboxer.errors import NotConfigured, Unavailable

_NOWHERE = os.devnull
_FROM_ROOT = 'cd / && exec "$@"'


def detach(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stdin: bytes = b"",
) -> int:
    """Start a program in a session of its own, at `/`, with its output going nowhere; its pid.

    It reads `stdin` and then the end. Of our descriptors it gets `pass_fds` (numbers kept, 3 and above), no others.
    `env` None is our own environment; a program without a `/` is looked up in its PATH. Signals have their default
    meaning in it again. It is not waited for, and leaves no zombie when it ends before us. Costs about 1 ms: spawned
    by posix_spawn, so without `subprocess`, whose import alone is 8 ms.

    Raises NotConfigured when there is no such program, Unavailable when the system cannot start another process.
    """
    if any(fd <= 2 for fd in pass_fds):
        raise ValueError("0, 1 and 2 are the program's own streams")
    environment = dict(os.environ if env is None else env)
    program = _find(argv[0], environment)
    source = _readable(stdin) if stdin else None
    try:
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _FROM_ROOT, "sh", program, *argv[1:]],
            environment,
            file_actions=_descriptors(source, pass_fds),
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGXFSZ],
        )
    except OSError as error:
        raise Unavailable(
            f"{argv[0]} could not be started: {error.strerror}",
            hint="this machine is short of processes or memory; see `ulimit -u` and `free`",
        ) from error
    finally:
        if source is not None:
            os.close(source)
    _thread.start_new_thread(_reap, (pid,))
    return pid


def _find(program: str, environment: Mapping[str, str]) -> str:
    places = [""] if "/" in program else os.get_exec_path(environment)
    for place in places:
        path = Path(place, program).absolute() if place else Path(program).absolute()
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    raise NotConfigured(f"there is no program {program!r} here", hint=f"install {program}, or mend PATH")


def _descriptors(source: int | None, pass_fds: Sequence[int]) -> list[tuple[int, ...] | tuple[int, int, str, int, int]]:
    """What the child does with its descriptors before the program starts."""
    kept = frozenset(pass_fds)
    opened = _open_descriptors()
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = []
    # not close-on-exec, so they would come along: from whoever started us, or from a library in C
    actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in sorted(opened - kept) if fd > 2 and _inheritable(fd)]
    # dup2 clears close-on-exec, but on itself only since glibc 2.29: so there and back, over a number nobody has
    spare = next(number for number in count(3) if number not in opened | kept)
    for fd in sorted(kept):
        actions += [
            (os.POSIX_SPAWN_DUP2, fd, spare),
            (os.POSIX_SPAWN_DUP2, spare, fd),
            (os.POSIX_SPAWN_CLOSE, spare),
        ]
    if source is None:
        actions.append((os.POSIX_SPAWN_OPEN, 0, _NOWHERE, os.O_RDONLY, 0))
    else:
        actions.append((os.POSIX_SPAWN_DUP2, source, 0))
    actions += [(os.POSIX_SPAWN_OPEN, fd, _NOWHERE, os.O_WRONLY, 0) for fd in (1, 2)]
    return actions


def _open_descriptors() -> frozenset[int]:
    listing = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    return frozenset(int(name) for name in os.listdir(listing))  # noqa: PTH208 - plain names, and no Path for each


def _inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False  # the listing's own, or another thread closed it


def _readable(data: bytes) -> int:
    """A descriptor from which `data` can be read without anybody writing: no pipe that could fill up."""
    if sys.platform == "linux":
        fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
    os.lseek(fd, 0, os.SEEK_SET)
    if fd > 2:
        return fd
    # we ourselves were started without standard streams; the child's would be laid over it
    moved = _above_streams(fd)
    os.close(fd)
    return moved


def _above_streams(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _reap(pid: int) -> None:
    """Wait for a child, so that it is no zombie for as long as this process lives (the API lives long)."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return  # somebody ignores SIGCHLD: the kernel did it
