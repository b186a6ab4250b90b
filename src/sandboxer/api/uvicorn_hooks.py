"""Bound the connections where somebody else started uvicorn: `uvicorn sandboxer.api.app:app` (contract §6).

uvicorn has made its choice of a protocol before it imports an application, and opens its socket only when that has
started. So the application, while it starts, sees to it that ours stands before the protocols of sockets which are
opened after that."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from sandboxer.api.protocol import BoundedConnection, State
from sandboxer.api.server import AT_ONCE, BACKLOG
from sandboxer.masking import masked

_UVICORN: Final = "uvicorn.protocols.http."
"""Where the protocols are that uvicorn chooses by itself; one that an operator names is left alone."""

Factory = Callable[[], asyncio.Protocol]
Listen = Callable[..., Awaitable[asyncio.Server]]


def bound_connections(loop: asyncio.AbstractEventLoop, state: State) -> None:
    """Let what uvicorn opens on this loop from now on keep to the bounds of `serve`; `state` is what it copies into the
    scope of each request. A loop that does not let itself be told (uvloop) stays as it is: there
    `--http sandboxer.api.protocol:Protocol` says it."""
    for name in ("create_server", "create_unix_server"):
        with suppress(AttributeError, TypeError):
            setattr(loop, name, _bounded(getattr(loop, name), state))


def _bounded(listen: Listen, state: State) -> Listen:
    @functools.wraps(listen)
    async def opened(factory: Factory, *args: Any, **more: Any) -> asyncio.Server:
        if not type(factory()).__module__.startswith(_UVICORN):
            return await listen(factory, *args, **more)
        bounded = functools.partial(_before, factory, state)
        server = await listen(bounded, *args, **{**more, "backlog": AT_ONCE})
        for listener in server.sockets:
            with listener.dup() as same:
                same.listen(BACKLOG)  # the loop has set it to what it takes at once
        return server

    return opened


def _before(factory: Factory, state: State) -> BoundedConnection:
    return BoundedConnection(factory(), state)


class WithoutSecrets(logging.Filter):
    """Lines of the access log without tokens that somebody put in a URL."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask what the line is made of; every line is kept."""
        if isinstance(record.args, tuple):
            record.args = tuple(masked(one) if isinstance(one, str) else one for one in record.args)
        return True


def mask_access_log() -> None:
    """Keep tokens out of uvicorn's log of requests, where there is one."""
    log = logging.getLogger("uvicorn.access")
    if not any(isinstance(one, WithoutSecrets) for one in log.filters):
        log.addFilter(WithoutSecrets())
