"""Read and write the Connect protocol with JSON, which envd speaks inside a sandbox. Pure.

Framing: one message is a flag
byte, four bytes of length (big-endian) and the JSON; the last message of a stream has flag 2 and may hold an error.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from sandboxer import document_bounds
from sandboxer.errors import BackendError

MAX_FRAME: Final = 16 << 20
"""The longest message that is read, in bytes; envd cuts output into pieces of 32 KiB."""
END: Final = 0x02
_COMPRESSED: Final = 0x01
_SIGNALS: Final = {
    "hangup": 1, "interrupt": 2, "quit": 3, "illegal instruction": 4, "trace/breakpoint trap": 5, "aborted": 6,
    "bus error": 7, "floating point exception": 8, "killed": 9, "user defined signal 1": 10, "segmentation fault": 11,
    "user defined signal 2": 12, "broken pipe": 13, "alarm clock": 14, "terminated": 15,
}  # fmt: skip
"""Go's words for signals: envd reports the end of a process in them (`signal: killed`)."""


def frame(message: Any) -> bytes:
    """Encode one message."""
    body = msgspec.json.encode(message)
    return struct.pack(">BI", 0, len(body)) + body


def frames(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Split a stream into flag and body of each message. Raises BackendError for what is not Connect."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= 5:
            flags, length = held[0], int.from_bytes(held[1:5], "big")
            if flags & _COMPRESSED or length > MAX_FRAME:
                raise BackendError("E2B's envd sent a message that cannot be read", hint="check E2B_SANDBOX_URL")
            if len(held) < 5 + length:
                break
            body = bytes(held[5 : 5 + length])
            del held[: 5 + length]
            yield flags, body
    if held:
        raise BackendError("E2B's envd broke off inside a message", hint="try again", outcome="unknown")


class StartEvent(msgspec.Struct, frozen=True):
    """The process has been started."""

    pid: int = 0


class DataEvent(msgspec.Struct, frozen=True):
    """It wrote something."""

    stdout: bytes | None = None
    stderr: bytes | None = None
    pty: bytes | None = None


class EndEvent(msgspec.Struct, frozen=True):
    """It has ended. `status` is Go's text of it. In the JSON of protocol buffers a field may have either of its two
    names, and is left out where it is 0."""

    exit_code: int = msgspec.field(default=0, name="exitCode")
    original: int = msgspec.field(default=0, name="exit_code")
    exited: bool = False
    status: str = ""
    error: str | None = None

    @property
    def code(self) -> int:
        """As a shell says it: the process's own code, or 128 + n when signal n ended it."""
        exit_code = self.exit_code or self.original
        if self.exited or not self.status.startswith("signal: "):
            return exit_code if exit_code >= 0 else 255
        words = self.status.removeprefix("signal: ").removesuffix(" (core dumped)")
        number = words.removeprefix("signal ")
        return 128 + (int(number[:3]) if number.isascii() and number.isdigit() else _SIGNALS.get(words, 9))


class ProcessEvent(msgspec.Struct, frozen=True):
    """One event of a process; exactly one is there, none in a sign of life."""

    start: StartEvent | None = None
    data: DataEvent | None = None
    end: EndEvent | None = None


class ProcessMessage(msgspec.Struct, frozen=True):
    """One message of `Process/Start`."""

    event: ProcessEvent = ProcessEvent()


class ConnectError(msgspec.Struct, frozen=True):
    """An error of the Connect protocol."""

    code: str = "unknown"
    message: str = ""


class StreamEnd(msgspec.Struct, frozen=True):
    """The last message of a stream."""

    error: ConnectError | None = None


def events(chunks: Iterable[bytes]) -> Iterator[ProcessEvent | ConnectError]:
    """Decode the events of a process stream; an error that ended it comes last. Raises BackendError for what is
    neither."""
    for flags, body in frames(chunks):
        try:
            if not flags & END:
                yield document_bounds.decode_as(ProcessMessage, body).event
                continue
            error = document_bounds.decode_as(StreamEnd, body).error
        except msgspec.DecodeError:
            raise BackendError(
                "E2B's envd sent a message that is not understood", hint="check E2B_SANDBOX_URL"
            ) from None
        if error is not None:
            yield error
        return
