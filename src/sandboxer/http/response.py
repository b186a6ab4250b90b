"""Responses of an API: whole, or read as they come."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from sandboxer import document_bounds
from sandboxer.errors import BackendError

MAX_BODY: Final = document_bounds.ANSWER.size
"""How much of an answer is read, in bytes, unless told otherwise."""

PAGE: Final = "(a page of HTML)"
_HTML: Final = re.compile(r"<(?:!doctype|html|head|body|title|center|h1)\b", re.IGNORECASE)


def without_html(text: str) -> str:
    """A provider's words up to where a page for browsers begins in them."""
    found = _HTML.search(text)
    return text if found is None else f"{text[: found.start()]}{PAGE}"


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A whole response. `headers` have lower-case names; `asked` is the method and path that it answers, without query;
    `name` the provider's. Its repr shows neither headers nor body: both may hold a sandbox's own key."""

    name: str
    asked: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Response({self.name}, {self.asked}, {self.status})"

    def json(self) -> Any:
        """Decode the body as JSON. Raises BackendError when it is not."""
        try:
            return document_bounds.decode(self.body)
        except document_bounds.LimitExceeded as error:
            raise BackendError(
                f"{self.name} answered {self.asked} with something that is not JSON within bounds: {error}",
                hint="check the address",
                outcome="failed" if self.asked.startswith(("GET ", "HEAD ")) else "unknown",
            ) from None
        except msgspec.DecodeError:
            raise BackendError(
                f"{self.name} answered {self.asked} with something that is not JSON",
                hint="check the address; a proxy or a login page may answer in its place",
                outcome="failed" if self.asked.startswith(("GET ", "HEAD ")) else "unknown",
            ) from None

    @property
    def text(self) -> str:
        """The beginning of the body, on one line, fit for an error message. Of a page for browsers, which a proxy gives
        in the API's place, only that it is one."""
        if "html" in self.headers.get("content-type", "").lower():
            return PAGE
        return without_html(" ".join(self.body[:2000].decode("utf-8", "replace").split()))[:500]

    @property
    def retry_after(self) -> float | None:
        """Seconds after which to retry, when the server says so."""
        return retry_after(self.headers.get("retry-after"))


class StreamedResponse:
    """A response whose body is read as it comes. Only inside the `with` of `ApiClient.stream`."""

    def __init__(self, *, status: int, headers: Mapping[str, str], read: Callable[[], bytes]) -> None:
        self.status = status
        self.headers = headers
        self._read = read

    def chunks(self) -> Iterator[bytes]:
        """The body's bytes as they come, to its end.

        Raises Timeout when the deadline passes or is cancelled (noticed within half a second), Unavailable when the
        connection breaks before the body's end."""
        while data := self._read():
            yield data


def retry_after(text: str | None, *, now: Callable[[], float] = time.time) -> float | None:
    """Parse the seconds of a Retry-After header (a number or an HTTP date); None when there is none that can be
    read."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        from email.utils import parsedate_to_datetime

        try:
            seconds = parsedate_to_datetime(text).timestamp() - now()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds and seconds < 1e9 else None
