"""The server's side of a connection: requests that never become one are told so, and do not hold it for ever."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from sandboxer.api.problems import MEDIA_TYPE, encode, problem
from sandboxer.errors import Invalid, SandboxerError, Timeout

HEAD_SECONDS: Final = 30.0
"""How long the head of a request may take to arrive. A body that is waited for has a limit of its own (`doorway`)."""

ANSWER_SECONDS: Final = 300.0
"""How long a client may leave an answer unread that is too large for the buffers between us."""


class Protocol(H11Protocol):
    """uvicorn's, but that would wait for ever for a head that was begun, and tell of a malformed one in plain text."""

    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._rest()
        self._read_on()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        super().pause_writing()
        self._unread = self.loop.call_later(ANSWER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read what there was."""
        self._read_on()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """A part of a request. The time for the head runs from the first one, however many follow; so does that for the
        rest of a body that was answered before it was complete."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE or self.conn.our_state in (h11.DONE, h11.MUST_CLOSE):
            self._watch()
        else:
            self._rest()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is refused in the shape of every error."""
        del msg
        self._refuse(
            Invalid("the request is not valid HTTP", hint="use an ordinary HTTP client"), HTTPStatus.BAD_REQUEST
        )

    def _watch(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def _rest(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _read_on(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _too_late(self) -> None:
        self._late = None
        late = Timeout(f"the request did not arrive within {HEAD_SECONDS:.0f}s", hint="send it again")
        self._refuse(late, HTTPStatus.REQUEST_TIMEOUT)

    def _refuse(self, error: SandboxerError, status: HTTPStatus) -> None:
        """Answer and hang up; where an answer has begun already, only hang up."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = encode(problem(error, path="", status=status))
            head = h11.Response(
                status_code=status,
                headers=[
                    ("Content-Type", MEDIA_TYPE),
                    ("Content-Length", str(len(body))),
                    ("Cache-Control", "no-store"),
                    ("X-Content-Type-Options", "nosniff"),
                    ("Connection", "close"),
                ],
                reason=status.phrase,
            )
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
