"""Keep what a program writes, up to a limit."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, Final

from sandboxer.errors import BackendError
from sandboxer.hosts.base import Command, Result, Sink, Streams
from sandboxer.hosts.process.launch import program_of
from sandboxer.timing import Deadline

CAPPED_BYTES: Final = 64 * 1024
"""How much a script of our own may say on each stream, in bytes."""


class CappedOutput:
    """The beginnings of two streams, at most CAPPED_BYTES each; what comes beyond is dropped."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._err = bytearray()

    def stdout(self, chunk: bytes) -> None:
        """A sink."""
        self._out += chunk[: CAPPED_BYTES - len(self._out)]

    def stderr(self, chunk: bytes) -> None:
        """A sink."""
        self._err += chunk[: CAPPED_BYTES - len(self._err)]

    def result(self, code: int) -> Result:
        """With the exit code."""
        return Result(code, bytes(self._out), bytes(self._err))


class Tail:
    """The last of what a program complains."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        self._kept = (self._kept + data)[-4096:]

    @property
    def text(self) -> str:
        """The last lines."""
        return "\n".join(self._kept.decode("utf-8", "replace").strip().splitlines()[-6:])


def capture_capped(
    run: Callable[[Streams], int],
    *,
    stdin: BinaryIO | None = None,
    stdout: Sink | None = None,
    stderr: Sink | None = None,
) -> Result:
    """Run one of our own small scripts by `run`. What it wrote is kept, up to CAPPED_BYTES a stream, unless a sink
    takes it."""
    kept = CappedOutput()
    return kept.result(run(Streams(stdin=stdin, stdout=stdout or kept.stdout, stderr=stderr or kept.stderr)))


def capture_output(
    stream: Callable[[Command, Streams, Deadline], int],
    command: Command,
    deadline: Deadline,
    *,
    stdin: bytes,
    limit: int,
) -> Result:
    """Run a command by `stream` and keep its two outputs; BackendError when one is longer than `limit` bytes."""
    out, err = bytearray(), bytearray()

    def keep(kept: bytearray, which: str) -> Callable[[bytes], None]:
        def sink(data: bytes) -> None:
            if len(kept) + len(data) > limit:
                raise BackendError(
                    f"{program_of(command.argv)} wrote more than {limit} bytes to {which}",
                    hint="its output is not what was expected; run it by hand to see",
                )
            kept.extend(data)

        return sink

    streams = Streams(
        stdin=io.BytesIO(stdin) if stdin else None, stdout=keep(out, "stdout"), stderr=keep(err, "stderr")
    )
    code = stream(command, streams, deadline)
    return Result(code, bytes(out), bytes(err))
