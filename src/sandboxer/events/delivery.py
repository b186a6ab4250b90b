"""One event over HTTP, with an end to every wait."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandboxer import __version__
from sandboxer.errors import NotConfigured
from sandboxer.events.sink import DeliveryResult, RetryLater, Sink, SinkDown, delivery_result
from sandboxer.models import Event
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS: Final = 2.0
READ_SECONDS: Final = 5.0
REQUEST_SECONDS: Final = 10.0
"""The end of a whole request: a peer that sends a byte now and then never lets a read time out."""
_BODY_LIMIT: Final = 64 * 1024

ClientFactory = Callable[[], "httpx.Client"]


def new_client(*, direct: bool, read: float = READ_SECONDS) -> httpx.Client:
    """A client with a time-out on each phase, that follows no redirect: it would carry the token elsewhere.

    `direct` passes by the proxies of the environment. Raises NotConfigured when those cannot be used."""
    import httpx

    timeout = httpx.Timeout(read, connect=CONNECT_SECONDS)
    try:
        return httpx.Client(timeout=timeout, follow_redirects=False, trust_env=not direct)
    except (ValueError, ImportError):
        raise NotConfigured(
            "the proxy that the environment names cannot be used",
            hint="look at HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, or except the address with NO_PROXY",
        ) from None


class EventSender:
    """Carries events to one sink over one connection. A context manager; for one thread."""

    def __init__(self, sink: Sink, client: ClientFactory | None = None) -> None:
        self._sink = sink
        # a hub on this machine is not behind a proxy, whatever the environment says
        self._client = client() if client is not None else new_client(direct=sink.loopback)
        self._socket: socket.socket | None = None
        self._resolved = False

    def deliver(self, event: Event, deadline: Deadline) -> DeliveryResult:
        """Post an event and understand the answer. Never raises for what the network or the neighbour does."""
        import httpx

        if not self._resolve():
            return SinkDown("its name is not resolved in time")
        seconds = deadline.seconds(REQUEST_SECONDS)
        end = threading.Timer(seconds, self._cut)
        end.daemon = True
        end.start()
        started = time.monotonic()
        try:
            return self._post(event)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return SinkDown(_cause(error))
        except httpx.TimeoutException:
            return RetryLater("no answer in time", slow=True)
        except httpx.HTTPError as error:
            # its text may quote a header, and so the token
            slow = time.monotonic() - started >= seconds
            return RetryLater(
                "no answer in time" if slow else f"the connection broke ({type(error).__name__})", slow=slow
            )
        finally:
            end.cancel()

    def _resolve(self) -> bool:
        """Look the name up once, in a thread that can be left behind: the system's resolver knows no deadline."""
        if not self._resolved:
            thread = threading.Thread(target=_look_up, args=(self._sink.host,), daemon=True)
            thread.start()
            thread.join(CONNECT_SECONDS)
            self._resolved = not thread.is_alive()
        return self._resolved

    def _post(self, event: Event) -> DeliveryResult:
        import httpx

        sink = self._sink
        headers = {"Content-Type": "application/json", "User-Agent": f"sand-boxer/{__version__}", **sink.headers(event)}
        if sink.token is not None:
            headers["Authorization"] = f"Bearer {sink.token.reveal()}"
        body = msgspec.json.encode(sink.body(event))
        extensions = {"trace": self._trace}
        with self._client.stream("POST", sink.url, content=body, headers=headers, extensions=extensions) as response:
            answer = delivery_result(response.status_code, response.headers.get("retry-after"), now=time.time())
            try:
                self._drain(response)
            except httpx.HTTPError:
                return answer  # the status line says it all; the rest only frees the connection
            return answer

    def _drain(self, response: httpx.Response) -> None:
        seen = 0
        for chunk in response.iter_raw():
            seen += len(chunk)
            if seen > _BODY_LIMIT:
                return

    def _trace(self, name: str, info: dict[str, Any]) -> None:
        if name.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")

    def _cut(self) -> None:
        """From the timer's thread: end the request in progress, which then fails with a broken connection."""
        connection = self._socket
        if connection is None:
            return
        try:
            # the plain socket's own: that of TLS would also take its state away under the reading thread
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
        except OSError:
            return  # it ended by itself

    def __enter__(self) -> EventSender:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._client.close()


def _look_up(host: str) -> None:
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return  # the connection will say it, or a proxy knows the name


def _cause(error: BaseException) -> str:
    """Why no connection was made, from the system's own error, whose text holds nothing of ours."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return "no connection"
