"""Event sinks: a neighbour's address, how an event is encoded for it, and what its responses mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from sandboxer.errors import Invalid, NotConfigured
from sandboxer.events.builder import payload
from sandboxer.models import Event, HubSettings
from sandboxer.secrets import Secret

_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?|[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?")
_LATER: Final = frozenset({408, 425, 429})
"""4xx statuses that are about the moment, not about the event."""


def _no_headers(_: Event) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """A neighbour that gets events. `shown` is its address without anything that could be a credential."""

    kind: Literal["state-hub", "fin-hub"] = "state-hub"
    name: str
    url: str
    shown: str
    token: Secret | None = None
    body: Callable[[Event], Any] = payload
    headers: Callable[[Event], Mapping[str, str]] = _no_headers


def state_hub(endpoint: HubSettings) -> Sink:
    """Configure the State Hub's sink. Raises NotConfigured without an address, Invalid when the address or the token
    cannot be used."""
    if not endpoint.url:
        raise NotConfigured("no State Hub is configured", hint="set SANDBOXER_STATE_HUB_URL, or state_hub.url")
    address = parse_sink_url(endpoint.url, "/progress", what="state_hub.url (or SANDBOXER_STATE_HUB_URL)")
    token = parse_token(endpoint.token, what="state_hub.token")
    return Sink(name="State Hub", url=address.url, shown=address.shown, token=token)


def fin_hub(endpoint: HubSettings) -> Sink:
    """Configure fin-hub's sink: usage records, to the address itself. Raises as `state_hub` does."""
    if not endpoint.url:
        raise NotConfigured("no fin-hub is configured", hint="set SANDBOXER_FIN_HUB_URL, or fin_hub.url")
    address = parse_sink_url(endpoint.url, "", what="fin_hub.url (or SANDBOXER_FIN_HUB_URL)")
    return Sink(
        kind="fin-hub",
        name="fin-hub",
        url=address.url,
        shown=address.shown,
        token=parse_token(endpoint.token, what="fin_hub.token"),
        body=_usage,
        headers=_idempotent,
    )


def _usage(event: Event) -> Any:
    return event.detail


def _idempotent(event: Event) -> Mapping[str, str]:
    return {"Idempotency-Key": event.event_id}


class SinkURL(NamedTuple):
    """Where to post, and how that is shown."""

    url: str
    shown: str


def parse_sink_url(text: str, path: str, *, what: str) -> SinkURL:
    """Parse a configured address and add `path` to it (nothing: the address as it is). Raises Invalid."""
    hint = "write it like https://hub.example.org"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise Invalid(f"{what} is not an address", hint=hint) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable() or " " in text:
        raise Invalid(f"{what} is not an http or https address", hint=hint)
    if not _HOST.fullmatch(parts.hostname):
        raise Invalid(f"{what} has no proper host name", hint=hint)
    if parts.username is not None or parts.password is not None:
        raise Invalid(f"{what} holds credentials", hint="put the token in the `token` beside it")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown = f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")
    target = parts.path.rstrip("/") + path if path else parts.path
    url = urlunsplit((parts.scheme, parts.netloc, target, parts.query, ""))
    return SinkURL(url, shown)


def parse_token(token: str | None, *, what: str) -> Secret | None:
    """Check that a token fits into a header. Raises Invalid, without quoting it."""
    if not token:
        return None
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise Invalid(f"{what} has characters that cannot be sent", hint="use printable ASCII without blanks")
    return Secret(token)


@dataclass(frozen=True, slots=True)
class Delivered:
    """The neighbour has the event."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The neighbour refuses this event for good."""

    reason: str


@dataclass(frozen=True, slots=True)
class RetryLater:
    """The neighbour does not take the event now. `after` is how many seconds the neighbour asked for; `slow` when it
    did not answer in time."""

    reason: str
    after: float | None = None
    slow: bool = False


@dataclass(frozen=True, slots=True)
class SinkDown:
    """Nothing can be sent to the neighbour now, this event or another."""

    reason: str


DeliveryResult = Delivered | Rejected | RetryLater | SinkDown


def delivery_result(status: int, retry_after: str | None, *, now: float) -> DeliveryResult:
    """Map a response to what it means for the event. `retry_after` is the header's text, `now` unix seconds."""
    if 200 <= status < 300:
        return Delivered()
    if 300 <= status < 400:
        return SinkDown(f"it redirects (HTTP {status}), which is not followed")
    if 400 <= status < 500 and status not in _LATER:
        return Rejected(f"HTTP {status}")
    return RetryLater(f"HTTP {status}", _seconds(retry_after, now))


def _seconds(retry_after: str | None, now: float) -> float | None:
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None
