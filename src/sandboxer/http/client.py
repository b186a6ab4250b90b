"""Call one provider's HTTP API: requests, retries, and what their failures mean."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlencode

import msgspec

from sandboxer import __version__
from sandboxer.errors import BackendError, Invalid, NotConfigured, Outcome, SandboxerError, Timeout, Unavailable
from sandboxer.http.address import Destination, destination_of, parse_base_url
from sandboxer.http.connection import ConnectionCut, Content, HTTPConnection, NotHTTP
from sandboxer.http.errors import response_error
from sandboxer.http.pool import POOL
from sandboxer.http.response import MAX_BODY, Response, StreamedResponse
from sandboxer.timing import Deadline

ATTEMPTS: Final = 5
ATTEMPT_SECONDS: Final = 30.0
"""The end of one attempt that may be retried; what may not be has the whole deadline."""
_PAUSE_SECONDS: Final = 0.2
_BUSY: Final = frozenset({429, 502, 503, 504})
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET: Final = re.compile(r"/[\x21-\x7e]*")

Params = Mapping[str, str | int | float | Sequence[str]] | Sequence[tuple[str, str]]
Headers = Mapping[str, str]
Retry = Literal["never", "safe"]


class ApiClient:
    """An API at one base address. Cheap to make; thread-safe; connections are shared by the whole process.

    `name` is the provider's in error texts. `headers` go with every request; a function is asked at each one, so that
    a secret is revealed into the request alone. `refuse` makes the error for a status that was not expected
    (`response_error` unless given). Redirections are never followed; TLS is always verified; proxies of
    the environment are used except for this machine. `ca_file` holds the authorities to verify by instead of the
    system's; `outage_hint` is what to do when it does not answer. Raises Invalid for an address that cannot be used.
    """

    def __init__(
        self,
        base: str,
        *,
        name: str,
        headers: Headers | Callable[[], Headers] | None = None,
        refuse: Callable[[Response], SandboxerError] = response_error,
        ca_file: str | None = None,
        outage_hint: str = "look at the provider's status page",
    ) -> None:
        self.base = parse_base_url(base, what=f"the address of {name}")._replace(ca_file=ca_file)
        self.name = name
        self._headers = headers
        self._refuse = refuse
        self._outage_hint = outage_hint

    def __repr__(self) -> str:
        return f"ApiClient({self.base.url!r}, name={self.name!r})"

    def call(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        *,
        json: Any = None,
        params: Params | None = None,
        content: Content | None = None,
        headers: Headers | None = None,
        retry: Retry = "never",
        expect: Sequence[int] | None = (200,),
        limit: int = MAX_BODY,
    ) -> Response:
        """Send a request and read the whole response (at most `limit` bytes). `path` begins with `/`, its parts quoted
        (`segment`).

        `json` (even an empty object; None is no body) or `content` is the body; content of unknown length travels in
        chunks. A status outside `expect` raises what `refuse` makes of it; None expects anything.

        `retry="safe"` says that the request may arrive twice: connection errors, time-outs of one attempt, 429 (after
        its Retry-After), 502, 503 and 504 are then tried again with pauses, up to 5 times, within the deadline; the
        content must be bytes.

        Raises Unavailable with outcome "failed" when the request cannot have arrived, and "unknown" when it may have;
        Timeout (unknown too once it was sent, unless it only looks); BackendError for an answer that is too long or is
        not HTTP; NotConfigured for a header that cannot be sent, which a key is the reason of; Invalid for such a path.
        """
        request = self._request(method, path, params=params, json=json, content=content, headers=headers)
        if retry == "never":
            answer = self._once(request, deadline, limit, repeatable=request.reads)
        else:
            answer = self._with_retries(request, deadline, limit)
        if expect is not None and answer.status not in expect:
            raise self._refuse(answer)
        return answer

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        *,
        json: Any = None,
        params: Params | None = None,
        content: Content | None = None,
        headers: Headers | None = None,
        expect: Sequence[int] | None = (200,),
    ) -> Iterator[StreamedResponse]:
        """Send a request and read the body as it comes, in the `with`. Never repeated. Leaving the `with` early, by
        whatever way, closes the connection. Other arguments and errors as for `call`; a status outside `expect` is read
        whole and raised."""
        request = self._request(method, path, params=params, json=json, content=content, headers=headers)
        with self._exchange(request, deadline, repeatable=request.reads) as (connection, status, received):
            if expect is not None and status not in expect:
                whole = self._read_whole(request, connection, received, MAX_BODY)
                raise self._refuse(self._answer(request, status, received, whole))
            yield StreamedResponse(status=status, headers=received, read=lambda: self._read_part(request, connection))

    def _with_retries(self, request: _Request, deadline: Deadline, limit: int) -> Response:
        for attempt in range(1, ATTEMPTS + 1):
            last = attempt == ATTEMPTS
            wait = _PAUSE_SECONDS * 2 ** (attempt - 1) * (0.5 + os.urandom(1)[0] / 256)
            try:
                answer = self._once(request, deadline.shorter(ATTEMPT_SECONDS), limit, repeatable=True)
            except Unavailable as error:
                if last or not error.retryable or _too_late(wait, deadline):
                    raise
            except Timeout:
                if last or deadline.passed:
                    raise
            else:
                if last or answer.status not in _BUSY:
                    return answer
                told = answer.retry_after
                wait = wait if told is None else told + wait / 4
                if _too_late(wait, deadline):
                    return answer
            _pause(wait, deadline)
        raise AssertionError("the last attempt answers or raises")

    def _once(self, request: _Request, deadline: Deadline, limit: int, *, repeatable: bool) -> Response:
        with self._exchange(request, deadline, repeatable=repeatable) as (connection, status, headers):
            return self._answer(request, status, headers, self._read_whole(request, connection, headers, limit))

    @contextmanager
    def _exchange(
        self, request: _Request, deadline: Deadline, *, repeatable: bool
    ) -> Iterator[tuple[HTTPConnection, int, dict[str, str]]]:
        """Send a request and read the head of its answer. The connection is kept afterwards if another request may
        follow (`HTTPConnection.reusable`), and closed otherwise."""
        connection = POOL.take(request.destination, deadline, repeatable=repeatable)
        try:
            with self._mapped_errors(request, connection):
                connection.send(request.method, request.target, request.headers, request.body)
                status, headers = connection.receive_head()
            yield connection, status, headers
        finally:
            if connection.reusable:
                POOL.give(request.destination, connection)
            else:
                connection.close()

    def _read_whole(self, request: _Request, connection: HTTPConnection, headers: Headers, limit: int) -> bytes:
        length = headers.get("content-length", "")
        parts: list[bytes] = []
        left = limit - int(length) if length.isdecimal() and request.method != "HEAD" else limit
        if left >= 0:
            left = limit
            while part := self._read_part(request, connection):
                parts.append(part)
                left -= len(part)
                if left < 0:
                    break
            else:
                return b"".join(parts)
        raise BackendError(
            f"{self.name} answered {request.asked} with more than {limit} bytes",
            hint="check the address",
            outcome="failed" if request.reads else "unknown",
        )

    def _read_part(self, request: _Request, connection: HTTPConnection) -> bytes:
        with self._mapped_errors(request, connection):
            return connection.receive_body()

    def _answer(self, request: _Request, status: int, headers: Headers, body: bytes) -> Response:
        return Response(name=self.name, asked=request.asked, status=status, headers=headers, body=body)

    @contextmanager
    def _mapped_errors(self, request: _Request, connection: HTTPConnection) -> Iterator[None]:
        """Map failures of an exchange to SandboxerError. The foreign ones are dropped: their texts may quote a
        header."""
        try:
            yield
        except (Timeout, OSError, ConnectionCut, NotHTTP) as error:
            raise self._failure(error, request, connection) from None

    def _failure(self, error: Exception, request: _Request, connection: HTTPConnection) -> SandboxerError:
        outcome: Outcome = "unknown" if connection.sent and not request.reads else "failed"
        if isinstance(error, Timeout):
            return Timeout(
                f"{self.name} did not answer {request.asked} in time",
                hint=f"give it longer with --timeout, or {self._outage_hint}",
                outcome=outcome,
            )
        if isinstance(error, NotHTTP):
            return BackendError(
                f"{self.name} answered {request.asked} with something that is not HTTP",
                hint="check the address",
                outcome=outcome,
            )
        reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        return Unavailable(
            f"the connection to {self.name} broke during {request.asked}{reason}",
            hint=f"try again; {self._outage_hint} if it goes on",
            outcome=outcome,
        )

    def _request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None,
        json: Any,
        content: Content | None,
        headers: Headers | None,
    ) -> _Request:
        query = urlencode(params, doseq=True) if params else ""
        target = f"{self.base.prefix}{path}{'?' if query else ''}{query}"
        if not _TARGET.fullmatch(target):
            raise Invalid(f"a path of {self.name} holds characters that cannot be sent", hint="this is a bug")
        destination = destination_of(self.base)
        own = self._headers() if callable(self._headers) else self._headers or {}
        sent = {
            "Host": self.base.authority,
            "User-Agent": f"sand-boxer/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            **own,
        }
        if destination.proxy is not None and self.base.scheme == "http":
            target = f"http://{self.base.authority}{target}"
            if destination.proxy.authorization:
                sent["Proxy-Authorization"] = destination.proxy.authorization
        if json is not None:
            sent["Content-Type"] = "application/json"
        elif content is not None:
            sent["Content-Type"] = "application/octet-stream"
        sent.update(headers or {})
        for name, value in sent.items():
            if not _VALUE.fullmatch(value):
                raise NotConfigured(
                    f"the header {name} for {self.name} holds characters that cannot be sent",
                    hint="check the key that is configured for it: a line break may have come along",
                )
        body = msgspec.json.encode(json) if json is not None else content
        return _Request(
            destination=destination, method=method, target=target, headers=sent, body=body, asked=f"{method} {path}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """One request. `asked` names it for people, without its query."""

    destination: Destination
    method: str
    target: str
    headers: Mapping[str, str]
    body: Content | None
    asked: str

    @property
    def reads(self) -> bool:
        """Whether it changes nothing at the provider."""
        return self.method in ("GET", "HEAD", "OPTIONS")


def _too_late(wait: float, deadline: Deadline) -> bool:
    """Tell whether a retry would come too late: then the last failure says more than that the time is over."""
    left = deadline.left()
    return left is not None and wait >= left


def _pause(seconds: float, deadline: Deadline) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not deadline.passed:
        time.sleep(min(left, deadline.seconds(0.25)))
    deadline.check("waiting to ask again")
