"""Admit or reject a request by its head alone, before its body is read (promise 29).

A browser on the same machine is the adversary that a loopback address does not keep out: a page anywhere may send
requests to 127.0.0.1, and by DNS rebinding also read the answers. Hence the Host and Origin checks, token or not.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sandboxer.errors import Denied

_LOOPBACK_HOST: Final = re.compile(rb"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
_ANY_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_WITHOUT_TOKEN: Final = frozenset({"/healthz"})
"""Paths that answer without the token: liveness, which tells nothing but that the process answers."""
_PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Paths that load balancers ask for, by HTTP/1.0 without a Host where that is their way."""
_FOREIGN_SITES: Final = frozenset({b"cross-site", b"same-site"})

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a request is not let in, and the HTTP status that says so."""

    status: int
    error: Denied


def rejection(
    headers: Headers,
    *,
    path: str,
    closed: bool,
    known: bool = False,
    server: str | None = None,
    client: str | None = None,
) -> Rejection | None:
    """Why this request is refused, or None. `closed`: it needs a token; `known`: the one that it carries
    (`bearer_token`) counts. `server` and `client` are the addresses of the two ends, where known."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value)
    return (
        _check_host(found.get(b"host", []), closed=closed, nameless=known or path in _PROBES)
        or _check_addresses(server, client, closed=closed)
        or _check_origin(found.get(b"origin", []), found.get(b"host", []))
        or _check_site(found.get(b"sec-fetch-site", []))
        or _check_token(path, closed=closed, known=known)
    )


def is_loopback(address: str) -> bool:
    """Whether a name or address means this machine alone."""
    if address.lower() == "localhost":
        return True
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _denied(message: str, hint: str, *, status: int = 403) -> Rejection:
    return Rejection(status, Denied(message, hint=hint))


def _check_host(hosts: list[bytes], *, closed: bool, nameless: bool) -> Rejection | None:
    if not hosts and nameless:
        return None  # HTTP/1.0: a probe, or a program that has shown its token; no browser leaves it out
    if len(hosts) != 1:
        return _denied("the request needs exactly one Host header", "use an ordinary HTTP client")
    if closed:
        if _ANY_HOST.fullmatch(hosts[0]):
            return None
        return _denied("the Host header is malformed", "write it as NAME or NAME:PORT")
    if _LOOPBACK_HOST.fullmatch(hosts[0]):
        return None
    return _denied(
        "without a token the API answers only to localhost, 127.0.0.1 and [::1]",
        "address it as http://127.0.0.1:PORT, or set SANDBOXER_API_TOKEN on the server",
    )


def _check_addresses(server: str | None, client: str | None, *, closed: bool) -> Rejection | None:
    """A server that somebody else started on a public address (`uvicorn --host 0.0.0.0`) is closed all the same."""
    if closed or not any(_is_foreign(address) for address in (server, client)):
        return None
    return _denied("without a token the API answers on loopback only", "set SANDBOXER_API_TOKEN on the server")


def _is_foreign(address: str | None) -> bool:
    if not address:
        return False
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False  # a Unix socket's path: its file mode says who may connect
    return not is_loopback(address)


def _check_origin(origins: list[bytes], hosts: list[bytes]) -> Rejection | None:
    if not origins:
        return None
    own = hosts[0].lower() if hosts else b""
    if (
        len(origins) == 1
        and _LOOPBACK_HOST.fullmatch(own)
        and origins[0].lower() in (b"http://" + own, b"https://" + own)
    ):
        return None
    return _denied("a foreign Origin is refused", "call the API from a program, not from a web page")


def _check_site(sites: list[bytes]) -> Rejection | None:
    """Browsers send no Origin with plain GETs, but they do say where those come from."""
    if not any(site.strip().lower() in _FOREIGN_SITES for site in sites):
        return None
    return _denied("a request from another web site is refused", "call the API from a program, not from a web page")


def needs_token(path: str) -> bool:
    """Whether a path asks for a token, where there is one."""
    return path not in _WITHOUT_TOKEN


def bearer_token(headers: Headers) -> bytes | None:
    """The token that a request carries: b"" for an Authorization header that carries none, or several of them; None
    without such a header."""
    given = [value for name, value in headers if name.lower() == b"authorization"]
    if not given:
        return None
    scheme, _, value = given[0].partition(b" ")
    return value.strip() if len(given) == 1 and scheme.lower() == b"bearer" else b""


def _check_token(path: str, *, closed: bool, known: bool) -> Rejection | None:
    if known or not closed or not needs_token(path):
        return None
    return _denied(
        "no valid token", "send the header `Authorization: Bearer TOKEN`; a token in the URL does not count", status=401
    )
