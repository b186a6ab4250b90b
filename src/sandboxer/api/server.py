"""Serve the HTTP API in one process, on loopback unless there is a token."""

from __future__ import annotations

import errno
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from sandboxer.api.auth import is_loopback
from sandboxer.errors import Conflict, Denied, Invalid, Unavailable
from sandboxer.manager.tokens import TokenVerifier

if TYPE_CHECKING:
    import uvicorn

    from sandboxer.bootstrap import Installation

GRACE_SECONDS = 3
"""How long requests may go on after the server was told to stop; then they are cut off. With STOP_SECONDS of the
service it ends within ten seconds, as every command does (promise 3)."""
BACKLOG = 512
AT_ONCE = 16
"""How many connections are taken in one turn of the loop, before any of them is looked at: each costs a descriptor."""


def serve(
    installation: Installation, host: str, port: int, *, listening: Callable[[dict[str, Any]], None] | None = None
) -> None:
    """Serve until SIGINT or SIGTERM. Port 0 takes a free one; `listening` is told `host`, `port` and `url` once it
    listens.

    Raises what keeps a token of the configuration from being read, Denied beyond loopback without a token, Conflict
    when the port is in use, Invalid for an address that is none or not ours, Unavailable when the application does not
    start."""
    keyring = TokenVerifier(installation.manager.services)
    check_exposure(host, closed=is_loopback(host) or keyring.closed)
    with listen(host, port) as listener:
        server = make_server(installation, listening=listening, keyring=keyring)
        with _hangup_ends(server):
            server.run(sockets=[listener])
    if not server.started:
        raise Unavailable("the server did not start", hint="its message is above")


@contextmanager
def _hangup_ends(server: uvicorn.Server) -> Iterator[None]:
    """A terminal that closes ends the server like the other signals, which uvicorn handles by itself. An exception from
    a signal's handler would strike some callback of the loop, and be lost there. Under nohup it stays ignored."""
    before = signal.getsignal(signal.SIGHUP)
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGHUP, server.handle_exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def make_server(
    installation: Installation,
    *,
    listening: Callable[[dict[str, Any]], None] | None = None,
    keyring: TokenVerifier | None = None,
) -> uvicorn.Server:
    """The server, not yet running. `keyring`: its tokens, where they were read."""
    import uvicorn

    from sandboxer.api.app import create_app
    from sandboxer.api.protocol import Protocol

    application = create_app(lambda: installation, keyring=keyring)

    class Server(uvicorn.Server):
        """Says where it listens once it handles signals: who waits for the line may send one at once."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for listener in sockets or () if self.started else ():
                listener.listen(BACKLOG)  # the loop has set it to what it takes at once
                shown, port = listener.getsockname()[:2]
                address = f"[{shown}]" if ":" in shown else shown
                url = f"http://{address}:{port}"
                sys.stderr.write(f"sandboxer listens on {url}\n")
                sys.stderr.flush()
                if listening is not None:
                    listening({"host": shown, "port": port, "url": url})

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.should_exit:  # the second one, of either kind
                self.force_exit = True
                application.state.service.hurry()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,  # a token that somebody puts in a URL must not be written to a log
        lifespan="on",
        ws="none",
        http=Protocol,
        loop="asyncio",
        proxy_headers=False,  # `auth` wants the real addresses
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        backlog=AT_ONCE,
    )
    return Server(config)


def check_exposure(host: str, *, closed: bool) -> None:
    """Refuse to be reached from elsewhere by anybody (promise 29); raises Denied."""
    if closed or is_loopback(host):
        return
    raise Denied(
        f"without a token the API listens on loopback only, not on {host!r}",
        hint="run `sandboxer tokens create NAME --role admin`, or set SANDBOXER_API_TOKEN; or use --host 127.0.0.1",
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raises Conflict, Denied, Invalid."""
    if not 0 <= port <= 65535:
        raise Invalid(f"{port} is not a port", hint="use 1 to 65535, or 0 for any free one")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # what it accepts inherits it; the loop does so for sockets that it has made itself. Without it the second
        # packet of an answer waits 40 ms for the client to confirm the first
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (socket.gaierror, UnicodeError) as error:
        raise Invalid(
            f"{host!r} is not an address of this machine", hint="use 127.0.0.1, or an address of it"
        ) from error
    except OSError as error:
        raise _refused(error, host, port) from error


def _refused(error: OSError, host: str, port: int) -> Conflict | Denied | Invalid:
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"port {port} on {host} is in use",
            hint="choose another with --port, or stop what listens there (`ss -ltnp`)",
        )
    if error.errno == errno.EACCES:
        return Denied(f"this user may not listen on port {port}", hint="use a port above 1023")
    return Invalid(
        f"cannot listen on {host}:{port}: {error.strerror}", hint="use 127.0.0.1, or an address of this machine"
    )
