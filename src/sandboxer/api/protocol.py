"""Bound what a connection costs: requests that never become one are told so, and do not hold it for ever; too many
connections do not keep others out.

It stands between the transport and uvicorn's own protocol, as one asyncio protocol before another, and passes on what
`framing` lets through, one request at a time. Nothing of uvicorn's insides is used (decision 0028)."""

from __future__ import annotations

import asyncio
import functools
import resource
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final, cast

from sandboxer.api.connections import ConnectionLimits, ConnectionState, choose_to_close, connection_limits, peer_of
from sandboxer.api.framing import MalformedRequest, RequestFraming
from sandboxer.api.problem_details import MEDIA_TYPE, encode, problem_of
from sandboxer.errors import Invalid, SandboxerError, Timeout, Unavailable

HEAD_SECONDS: Final = 5.0
"""How long the head of a request may take to arrive. A body has a limit of its own (`middleware`)."""

ANSWER_SECONDS: Final = 300.0
"""How long a client may leave an answer unread that is too large for the buffers between us."""
CONNECTION: Final = "sandboxer.connection"
"""Where the state of a request's scope holds its connection."""
_CONNECTIONS: Final = "sandboxer.connections"

State = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


@functools.cache
def most() -> ConnectionLimits:
    """How many connections this process holds, from its limit of descriptors."""
    return connection_limits(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


class BoundedConnection(asyncio.Protocol):
    """One connection, before the protocol `inner` of the server.

    `state` is what the server copies into the scope of each request: there the application finds this connection, and
    tells it when it answers (`answering`). asyncio and ASGI promise both ends of this."""

    def __init__(self, inner: asyncio.Protocol, state: State) -> None:
        self._inner = inner
        self._state = state
        self._others: set[BoundedConnection] = state.setdefault(_CONNECTIONS, set())
        self._framing = RequestFraming()
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._peer = ""
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._unread_since = 0.0
        self._begun = False  # the answer to the present request
        self._answered = False
        self._ended = False  # nothing is passed on any more

    # -- what the transport tells -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request, if there is room."""
        self._transport = cast("asyncio.Transport", transport)
        self._inner.connection_made(transport)
        # told of every byte that is not read: so the wait for the client ends, also after the last answer
        self._transport.set_write_buffer_limits(high=0)
        name = transport.get_extra_info("peername")
        self._peer = peer_of(str(name[0]) if isinstance(name, tuple) else None)
        self._watch()
        self._make_room()
        self._others.add(self)

    def data_received(self, data: bytes) -> None:
        """A part of a request. The time for the head runs from the first one, however many follow; so does that for the
        rest of a body that was answered before it was complete."""
        if self._ended:
            return
        self._pass_on(data)
        if self._framing.complete and self._framing.holds:
            self._transport.pause_reading()  # the next request is read when this one has been answered
        if self._framing.in_head or self._answered:
            self._watch()
        else:
            self._rest()

    def eof_received(self) -> bool | None:
        """The client is done."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._inner.pause_writing()
        self._unread_since = self._loop.time()
        self._unread = self._loop.call_later(ANSWER_SECONDS, self._transport.abort)

    def resume_writing(self) -> None:
        """The client has read what there was."""
        self._read_on()
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._rest()
        self._read_on()
        self._others.discard(self)
        self._end(exc)

    # -- what the application tells ---------------------------------------------------------------------------------

    def answer_begins(self) -> None:
        """The present request is answered from now on."""
        self._begun = True

    def answer_ends(self) -> None:
        """The present request has its answer: it is idle, or goes on with what the client has sent behind it."""
        self._since = self._loop.time()
        self._begun = self._answered = True
        if self._ended or self._transport.is_closing() or not self._framing.complete:
            return
        self._transport.resume_reading()
        self._pass_on(b"")
        if self._framing.holds:
            self._watch()

    # -- what is between them ---------------------------------------------------------------------------------------

    def _pass_on(self, data: bytes) -> None:
        """Give the server's protocol what has passed; begin the next request where this one has its answer."""
        try:
            self._give(self._framing.feed(data))
            while self._answered and self._framing.complete:
                self._framing.begin_next()
                self._begun = self._answered = False
                self._give(self._framing.feed(b""))
        except MalformedRequest as malformed:
            self._refuse(Invalid("the request is not valid HTTP", hint="use an ordinary HTTP client"), malformed.status)

    def _give(self, passed: bytes) -> None:
        if not passed:
            return
        self._state[CONNECTION] = self  # copied into the request's scope when its head is parsed, which is now
        self._inner.data_received(passed)
        del self._state[CONNECTION]

    def _end(self, exc: Exception | None) -> None:
        if not self._ended:
            self._ended = True
            self._inner.connection_lost(exc)

    def held(self) -> ConnectionState:
        """What it counts as among the others."""
        stuck = self._unread is not None and self._loop.time() - self._unread_since > HEAD_SECONDS
        waits = self._ended or self._answered or not self._framing.complete or stuck
        return ConnectionState(self._peer, self._since, waits=waits)

    @property
    def gone(self) -> bool:
        """Whether its descriptor is free at the next turn of the loop, or another protocol's."""
        if self._transport.get_protocol() is not self:
            return True
        return self._transport.is_closing() and not self._transport.get_write_buffer_size()

    def _make_room(self) -> None:
        """Close one, where this one is too many."""
        self._others.difference_update([one for one in self._others if one.gone])
        others = list(self._others)
        newcomer, held = self.held(), [other.held() for other in others]
        closed = choose_to_close(newcomer, held, most())
        if closed is newcomer:
            full = Unavailable("the server holds all the connections it may", hint="try again in a moment")
            self._refuse(full, HTTPStatus.SERVICE_UNAVAILABLE)
        for other, one in zip(others, held, strict=True):
            if one is closed:
                other._transport.abort()

    def _watch(self) -> None:
        if self._late is None:
            self._late = self._loop.call_later(HEAD_SECONDS, self._too_late)

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
        if not self._begun and not self._transport.is_closing():
            body = encode(problem_of(error, path="", status=status))
            head = (
                f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
                "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
            )
            self._transport.write(head.encode() + body)
        self._transport.close()
        self._end(None)  # what still works on the request hears that nobody waits, and writes nothing behind this


class Protocol(BoundedConnection):
    """What uvicorn takes as its protocol: `--http sandboxer.api.protocol:Protocol`."""

    def __init__(self, *, app_state: dict[str, Any], **given: Any) -> None:
        from uvicorn.protocols.http.h11_impl import H11Protocol

        super().__init__(H11Protocol(app_state=app_state, **given), app_state)


def answering(send: Send, scope_state: State | None) -> Send:
    """`send` of an application, which tells the connection of the request when its answer begins and ends."""
    connection: BoundedConnection | None = (scope_state or {}).get(CONNECTION)
    if connection is None:
        return send

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            connection.answer_begins()
        await send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            connection.answer_ends()

    return told
