"""Starting a program on this machine with exactly the descriptors that are given: about 1 ms, without `subprocess`."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from sandboxer.errors import Invalid, Unavailable

_SAFE: Final = 10
"""Sources are moved to numbers from here on, so that laying one in its place cannot cover another."""
_DEFAULTS: Final = (
    signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP,
)  # fmt: skip


def spawn(argv: Sequence[str], *, env: Mapping[str, str], fds: Mapping[int, int], started: list[int]) -> None:
    """Start `argv[0]` (a path) in a session of its own; its pid, to be reaped by the caller, is added to `started`,
    also when a signal's handler raises here.

    `fds` maps the program's descriptor numbers (below 10) to ours. Nothing else is inherited. Signals have their
    default meaning in it. Never runs Python between fork and exec: it is safe beside other threads. Raises Unavailable
    when the system cannot start another process, Invalid when the arguments are too long for it.
    """
    moved = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _SAFE) for number, fd in fds.items()}
    actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable() if fd > 2 and fd not in moved]
    actions += [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in moved.items()]
    start = partial(
        os.posix_spawn,
        file_actions=actions,
        setsid=True,
        setsigmask=[],
        setsigdef=_DEFAULTS,
    )
    try:
        # A handler runs as soon as a call has returned, before its result can be stored: a plain assignment would lose
        # the pid. `extend` stores it before it returns.
        started.extend(map(start, [argv[0]], [list(argv)], [dict(env)]))
    except OSError as error:
        if error.errno == errno.E2BIG:
            raise Invalid(
                "the command's arguments and environment are too long for this system",
                hint="pass long data by stdin or in a file",
            ) from error
        raise Unavailable(
            f"no process could be started: {error.strerror}",
            hint="this machine is short of processes or memory; see `ulimit -u` and `free`",
        ) from error
    finally:
        for fd in moved.values():
            os.close(fd)


def _inheritable() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - plain names, and no Path for each
        try:
            if os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:  # the listing's own, or another thread closed it
            continue
    return found
