"""One provider's HTTP API."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from typing import Any, BinaryIO, Final, Literal
from urllib.parse import urlencode

import msgspec

from sandboxer import __version__
from sandboxer.errors import BackendError, Invalid, NotConfigured, SandboxerError, Timeout, Unavailable
from sandboxer.http.address import parse_base_url, proxy_for
from sandboxer.http.errors import response_error
from sandboxer.http.network import DeadlineConnection
from sandboxer.http.pool import POOL
from sandboxer.http.response import MAX_BODY, Response, StreamedResponse
from sandboxer.timing import Deadline

ATTEMPTS: Final = 5
ATTEMPT_SECONDS: Final = 30.0
"""The end of one attempt that may be repeated; what may not be repeated has the whole deadline."""
_PAUSE_SECONDS: Final = 0.2
_BUSY: Final = frozenset({429, 502, 503, 504})
_CHUNK: Final = 64 * 1024
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET: Final = re.compile(r"/[\x21-\x7e]*")

Params = Mapping[str, str | int | float | Sequence[str]] | Sequence[tuple[str, str]]
Content = bytes | BinaryIO | Iterable[bytes]
Headers = Mapping[str, str]
Retry = Literal["never", "safe"]


class Api:
    """An API at one base address. Cheap to make; thread-safe; connections are shared by the whole process.

    `name` is the provider's in error texts. `headers` go with every request; a function is asked at each one, so that
    a secret is revealed into the request alone. `refuse` makes the error for a status that was not expected
    (`http.refusal` unless given; fall back on it). Redirections are never followed; TLS is always verified; proxies of
    the environment are used except for this machine. `ca_file` holds the authorities to verify by instead of the
    system's. Raises Invalid for an address that cannot be used.
    """

    def __init__(
        self,
        base: str,
        *,
        name: str,
        headers: Headers | Callable[[], Headers] | None = None,
        refuse: Callable[[Response], SandboxerError] = response_error,
        ca_file: str | None = None,
    ) -> None:
        self.base = parse_base_url(base, what=f"the address of {name}")._replace(ca_file=ca_file)
        self.name = name
        self._headers = headers
        self._refuse = refuse

    def __repr__(self) -> str:
        return f"Api({self.base.url!r}, name={self.name!r})"

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
        """Ask, and read the whole answer (at most `limit` bytes). `path` begins with `/`, its parts quoted (`segment`).

        `json` (even an empty object; None is no body) or `content` is the body; content of unknown length travels in
        chunks. A status outside `expect` raises what `refuse` makes of it; None expects anything.

        `retry="safe"` says that the request may arrive twice: connection errors, time-outs of one attempt, 429 (after
        its Retry-After), 502, 503 and 504 are then tried again with pauses, up to 5 times, within the deadline; the
        content must be bytes.

        Raises Unavailable with outcome "failed" when the request cannot have arrived, and "unknown" when it may have;
        Timeout (unknown too once it was sent, unless it only looks); BackendError for an answer that is too long or is
        not HTTP; NotConfigured for a header that cannot be sent, which a key is the reason of; Invalid for such a path.
        """
        words = _Words(method, self._target(path, params), f"{method} {path}", self._sent(json, content, headers))
        body = msgspec.json.encode(json) if json is not None else content
        if retry == "never":
            answer = self._once(words, body, deadline, limit, repeatable=words.looks)
        else:
            answer = self._again_and_again(words, body, deadline, limit)
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
        """Ask, and read the body as it comes, in the `with`. Never repeated. Leaving the `with` early, by whatever way,
        closes the connection. Other arguments and errors as for `call`; a status outside `expect` is read whole and
        raised."""
        words = _Words(method, self._target(path, params), f"{method} {path}", self._sent(json, content, headers))
        body = msgspec.json.encode(json) if json is not None else content
        line, response = self._begin(words, body, deadline, repeatable=words.looks)
        good = False
        try:
            if expect is not None and response.status not in expect:
                answer = self._answer(words, response, self._whole(words, line, response, MAX_BODY))
                good = True
                raise self._refuse(answer)
            yield StreamedResponse(
                status=response.status,
                headers=_lower(response),
                read=lambda: self._some(words, line, response),
            )
            good = True
        finally:
            self._end(line, response, good=good)

    def _again_and_again(self, words: _Words, body: Content | None, deadline: Deadline, limit: int) -> Response:
        for attempt in range(1, ATTEMPTS + 1):
            last = attempt == ATTEMPTS
            wait = _PAUSE_SECONDS * 2 ** (attempt - 1) * (0.5 + os.urandom(1)[0] / 256)
            try:
                answer = self._once(words, body, deadline.shorter(ATTEMPT_SECONDS), limit, repeatable=True)
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

    def _once(
        self, words: _Words, body: Content | None, deadline: Deadline, limit: int, *, repeatable: bool
    ) -> Response:
        line, response = self._begin(words, body, deadline, repeatable=repeatable)
        good = False
        try:
            data = self._whole(words, line, response, limit)
            good = True
        finally:
            self._end(line, response, good=good)
        return self._answer(words, response, data)

    def _begin(
        self, words: _Words, body: Content | None, deadline: Deadline, *, repeatable: bool
    ) -> tuple[DeadlineConnection, HTTPResponse]:
        line = POOL.take(self.base, deadline, repeatable=repeatable)
        begun = False
        try:
            with self._told(words, line):
                if body is None or (isinstance(body, bytes) and len(body) <= _CHUNK):
                    line.wire.hold()
                line.request(words.method, words.target, body=body, headers=words.headers)
                line.wire.flush()
                response = line.getresponse()
            if line.wire.ended:
                raise self._cut(words)
            begun = True
            return line, response
        finally:
            if not begun:
                line.wire.cut()

    def _whole(self, words: _Words, line: DeadlineConnection, response: HTTPResponse, limit: int) -> bytes:
        with self._told(words, line):
            if response.length is not None and response.length <= limit:
                return response.read()
            data = b"" if response.length is not None else response.read(limit + 1)
        if response.length is None and len(data) <= limit:
            return data
        raise BackendError(
            f"{self.name} answered {words.asked} with more than {limit} bytes",
            hint="check the address",
            outcome="failed" if words.looks else "unknown",
        )

    def _some(self, words: _Words, line: DeadlineConnection, response: HTTPResponse) -> bytes:
        if response.length == 0:
            response.close()  # which `read1`, other than `read`, leaves to us
        if response.isclosed():
            return b""
        with self._told(words, line):
            data = response.read1(_CHUNK)
        if not data and response.length:
            raise self._cut(words)
        return data

    def _answer(self, words: _Words, response: HTTPResponse, body: bytes) -> Response:
        return Response(name=self.name, asked=words.asked, status=response.status, headers=_lower(response), body=body)

    def _end(self, line: DeadlineConnection, response: HTTPResponse, *, good: bool) -> None:
        if good and response.isclosed() and line.reusable:
            POOL.give(self.base, line)
            return
        line.wire.cut()
        response.close()

    @contextmanager
    def _told(self, words: _Words, line: DeadlineConnection) -> Iterator[None]:
        """Make our errors of what happens to an exchange. The foreign ones are dropped: their texts may quote a
        header."""
        try:
            yield
        except Timeout:
            raise Timeout(
                f"{self.name} did not answer {words.asked} in time",
                hint="give it longer with --timeout, or look at the provider's status page",
                outcome="unknown" if line.wire.sent and not words.looks else "failed",
            ) from None
        except (OSError, RemoteDisconnected, IncompleteRead) as error:
            why = error.strerror if isinstance(error, OSError) else None
            raise self._cut(words, why=why, sent=line.wire.sent) from None
        except HTTPException:
            raise BackendError(
                f"{self.name} answered {words.asked} with something that is not HTTP",
                hint="check the address",
                outcome="unknown" if line.wire.sent and not words.looks else "failed",
            ) from None

    def _cut(self, words: _Words, *, why: str | None = None, sent: bool = True) -> Unavailable:
        reason = f" ({why})" if why else ""
        return Unavailable(
            f"the connection to {self.name} broke during {words.asked}{reason}",
            hint="try again; look at the provider's status page if it goes on",
            outcome="unknown" if sent and not words.looks else "failed",
        )

    def _target(self, path: str, params: Params | None) -> str:
        query = urlencode(params, doseq=True) if params else ""
        target = f"{self.base.prefix}{path}{'?' if query else ''}{query}"
        if not _TARGET.fullmatch(target):
            raise Invalid(f"a path of {self.name} holds characters that cannot be sent", hint="this is a bug")
        if self.base.scheme == "http" and proxy_for(self.base) is not None:
            return f"http://{self.base.authority}{target}"
        return target

    def _sent(self, json: Any, content: Content | None, headers: Headers | None) -> dict[str, str]:
        own = self._headers() if callable(self._headers) else self._headers or {}
        sent = {"User-Agent": f"sand-boxer/{__version__}", "Accept": "application/json", **own}
        proxy = proxy_for(self.base) if self.base.scheme == "http" else None
        if proxy is not None and proxy.authorization:
            sent["Proxy-Authorization"] = proxy.authorization
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
        return sent


class _Words:
    """One request in words. `asked` is for people, without query."""

    __slots__ = ("asked", "headers", "looks", "method", "target")

    def __init__(self, method: str, target: str, asked: str, headers: dict[str, str]) -> None:
        self.method, self.target, self.asked, self.headers = method, target, asked, headers
        self.looks = method in ("GET", "HEAD", "OPTIONS")


def _lower(response: HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _too_late(wait: float, deadline: Deadline) -> bool:
    """Whether it would not be asked again in time: then the last failure says more than that the time is over."""
    left = deadline.left()
    return left is not None and wait >= left


def _pause(seconds: float, deadline: Deadline) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not deadline.passed:
        time.sleep(min(left, deadline.seconds(0.25)))
    deadline.check("waiting to ask again")
