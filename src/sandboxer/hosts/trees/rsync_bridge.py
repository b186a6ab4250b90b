"""rsync's other end over a host's own connection.

rsync wants a program that carries its bytes. Ours is a few lines of shell between rsync and two pipes of this process,
which carries them on a channel of the connection that is there already: the same verified server and the same login,
jumps and all, with no second handshake and no second set of settings to keep in step.
"""

from __future__ import annotations

import os
import select
import threading
from types import TracebackType
from typing import Final, Self

from sandboxer.errors import BackendError, SandboxerError, Timeout
from sandboxer.hosts.base import Command, Host, Sink, Streams
from sandboxer.hosts.process.launch import SHELL, by_system_path
from sandboxer.timing import Deadline

# The words of the remote command come first, one on a line, then an empty line, then rsync's bytes. rsync gives one
# socket for both ways, so it sees the end only when nobody holds the socket: the carrier ends as soon as the remote
# side has, and takes the other direction with it.
_CARRIER: Final = (
    "shift; exec 3>/proc/{pid}/fd/{up} 4</proc/{pid}/fd/{down} 5<&0 </dev/null; "
    "for w; do echo $w; done >&3; echo >&3; cat <&5 >&3 4<&- 5<&- & exec 3>&- 5<&-; cat <&4; kill -9 $!"
)
_MAX_WORDS: Final = 64 * 1024
_TICK_MS: Final = 200


class RsyncBridge:
    """Runs what rsync asks for on `host`, once rsync asks. `rsh` is for rsync's `-e`."""

    def __init__(self, host: Host, deadline: Deadline, errors: Sink) -> None:
        self._host, self._errors = host, errors
        self._deadline = Deadline(deadline.left())  # our own: ending the bridge must not end the verb
        self._up_read, self._up_write = os.pipe2(os.O_CLOEXEC)
        self._down_read, self._down_write = os.pipe2(os.O_CLOEXEC)
        self._failure: BaseException | None = None
        self._code = 0
        self._thread = threading.Thread(target=self._run, name="sandboxer-rsync", daemon=True)
        script = _CARRIER.format(pid=os.getpid(), up=self._up_write, down=self._down_read)
        self.rsh = f"{SHELL} -c '{script}' sh"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # after rsync has ended the remote side sees the end of its input and ends too
        self._thread.join(2 if kind is None else 0)
        self._deadline.cancel()
        self._thread.join(5)

    def finish(self, code: int) -> int:
        """The exit code of both ends together, where rsync's own is `code`: the receiver's complaints are told by its
        exit code alone, which the carrier cannot hand on. Raises what went wrong with the connection."""
        self._thread.join(2)
        if isinstance(self._failure, SandboxerError):
            raise self._failure
        if self._failure is not None and not isinstance(self._failure, BrokenPipeError):
            raise BackendError(
                f"rsync's connection to {self._host.name} failed: {self._failure}", hint="try again"
            ) from self._failure
        return code or self._code

    def _run(self) -> None:
        theirs = [self._up_write, self._down_read]
        try:
            asked = self._asked()
            # rsync's side has both pipes open by now; with ours closed, either end notices when the other is gone
            while theirs:
                os.close(theirs.pop())
            if asked is None:
                return
            words, rest = asked
            command = Command(argv=by_system_path(*words), prelude=rest, env={"LC_ALL": "C"})
            with os.fdopen(os.dup(self._up_read), "rb", buffering=0) as stdin:
                streams = Streams(stdin=stdin, stdout=self._pass_down, stderr=self._errors)
                self._code = self._host.stream(command, streams, self._deadline)
        except BaseException as error:  # noqa: BLE001 - raised by `check`, in the thread that waits
            self._failure = error
        finally:
            for fd in (*theirs, self._up_read, self._down_write):
                os.close(fd)

    def _asked(self) -> tuple[list[str], bytes] | None:
        """The words of the command that rsync wants, and what came behind them; None when it does not ask."""
        poller = select.poll()
        poller.register(self._up_read, select.POLLIN)
        head = b""
        while b"\n\n" not in head:
            if self._deadline.passed:
                return None
            if not poller.poll(_TICK_MS):
                continue
            head += os.read(self._up_read, _MAX_WORDS)
            if len(head) > _MAX_WORDS * 2:
                raise Timeout("rsync asks for something that is no command", hint="is it another program's rsync?")
        words, _, rest = head.partition(b"\n\n")
        argv = words.decode().split("\n")
        if argv[0] != "rsync" or "--server" not in argv:
            raise BackendError(f"rsync asks for {argv[0]!r}", hint="is RSYNC_RSH or a popt alias set?")
        return argv, rest

    def _pass_down(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._down_write, left) :]
