"""The server's side of a connection: requests that never become one are told so, and do not hold it for ever; too many
connections do not keep others out."""

from __future__ import annotations

import asyncio
import functools
import resource
import sys
from http import HTTPStatus
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from sandboxer.api.connections import ConnectionLimits, ConnectionState, choose_to_close, connection_limits, peer_of
from sandboxer.api.framing import TOO_LARGE, StrictBuffer
from sandboxer.api.problem_details import MEDIA_TYPE, encode, problem_of
from sandboxer.errors import Invalid, SandboxerError, Timeout, Unavailable

HEAD_SECONDS: Final = 5.0
"""How long the head of a request may take to arrive. A body that is waited for has a limit of its own (`doorway`)."""

ANSWER_SECONDS: Final = 300.0
"""How long a client may leave an answer unread that is too large for the buffers between us."""


@functools.cache
def most() -> ConnectionLimits:
    """How many connections this process holds, from its limit of descriptors."""
    return connection_limits(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


class Protocol(H11Protocol):
    """uvicorn's, but that would wait for ever for a head that was begun, tell of a malformed one in plain text, and
    take connections until there are no descriptors left."""

    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _unread_since: float = 0.0
    _since: float = 0.0
    _peer: str = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Wait for the first request, if there is room."""
        super().connection_made(transport)
        # told of every byte that is not read: so the wait for the client ends, also after the last answer
        transport.set_write_buffer_limits(high=0)
        self.conn._receive_buffer = StrictBuffer(lambda: self.conn.their_state is h11.IDLE)
        self._peer = peer_of(self.client[0] if self.client else None)
        self._since = self.loop.time()
        self._watch()
        self._make_room()

    def held(self) -> ConnectionState:
        """What it counts as among the others."""
        complete = self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)
        answered = self.conn.our_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)
        stuck = self._unread is not None and self.loop.time() - self._unread_since > HEAD_SECONDS
        return ConnectionState(self._peer, self._since, waits=not complete or answered or stuck)

    def _make_room(self) -> None:
        """Close one, where this one is too many."""
        others = [one for one in self.connections if isinstance(one, Protocol) and one is not self and not one.gone]
        newcomer, held = self.held(), [other.held() for other in others]
        closed = choose_to_close(newcomer, held, most())
        if closed is newcomer:
            full = Unavailable("the server holds all the connections it may", hint="try again in a moment")
            self._refuse(full, HTTPStatus.SERVICE_UNAVAILABLE)
        for other, one in zip(others, held, strict=True):
            if one is closed:
                other.transport.abort()

    @property
    def gone(self) -> bool:
        """Whether its descriptor is free at the next turn of the loop."""
        return self.transport.is_closing() and not self.transport.get_write_buffer_size()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._rest()
        self._read_on()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        super().pause_writing()
        self._unread_since = self.loop.time()
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

    def on_response_complete(self) -> None:
        """From now on it is idle."""
        self._since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is refused in the shape of every error."""
        del msg
        error = sys.exception()
        status = HTTPStatus.BAD_REQUEST
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == TOO_LARGE:
            status = TOO_LARGE
        self._refuse(Invalid("the request is not valid HTTP", hint="use an ordinary HTTP client"), status)

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
            body = encode(problem_of(error, path="", status=status))
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
