"""Parse base URLs and find the proxy of the environment."""

from __future__ import annotations

import os
import re
from binascii import b2a_base64
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from sandboxer.errors import Invalid, NotConfigured

_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?|[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?")
_LOOPBACK: Final = re.compile(r".+\.localhost|127(\.\d{1,3}){3}")
_PORTS: Final = {"http": 80, "https": 443}


class BaseURL(NamedTuple):
    """A base address. `prefix` is its path without the last slash; `url` the whole, without credentials; `ca_file`
    names the authorities that its TLS is verified by, instead of the system's."""

    scheme: str
    host: str
    port: int
    prefix: str
    ca_file: str | None = None

    @property
    def url(self) -> str:
        """The whole URL, as it is shown and compared."""
        return f"{self.scheme}://{self.authority}{self.prefix}"

    @property
    def authority(self) -> str:
        """Host, and port where it is not the usual one: what `Host` says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """Host and port, as CONNECT names them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether it is on this machine."""
        return self.host in ("localhost", "::1") or _LOOPBACK.fullmatch(self.host) is not None


def parse_base_url(text: str, *, what: str) -> BaseURL:
    """Parse a base URL; `what` names it in errors, which never quote it: it may hold a credential.

    Raises Invalid when it is not http or https, has no proper host, or holds credentials, a query or a fragment."""
    hint = "write it like https://api.example.org"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise Invalid(f"{what} is not an address", hint=hint) from None
    if parts.scheme not in _PORTS or not parts.hostname or not text.isascii() or not text.isprintable() or " " in text:
        raise Invalid(f"{what} is not an http or https address", hint=hint)
    if parts.username is not None or parts.password is not None:
        raise Invalid(f"{what} holds credentials", hint="configure the key apart from the address")
    if not _HOST.fullmatch(parts.hostname):
        raise Invalid(f"{what} has no proper host name", hint=hint)
    if parts.query or parts.fragment:
        raise Invalid(f"{what} holds a query or a fragment", hint=hint)
    return BaseURL(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], parts.path.rstrip("/"))


def segment(text: str) -> str:
    """Quote a text as one segment of a path."""
    return quote(text, safe="")


class Proxy(NamedTuple):
    """A proxy of the environment. `authorization` is the value of its header, or empty; it is never shown."""

    host: str
    port: int
    authorization: str

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"


class Destination(NamedTuple):
    """What a connection leads to: an address, whatever its prefix, directly or by a proxy. Connections to equal ones
    serve each other's requests."""

    base: BaseURL
    proxy: Proxy | None


def destination_of(base: BaseURL) -> Destination:
    """Tell where requests to an address go in the present environment. Raises NotConfigured as `proxy_for` does."""
    return Destination(base._replace(prefix=""), proxy_for(base))


def proxy_for(base: BaseURL, environment: Mapping[str, str] | None = None) -> Proxy | None:
    """Find the proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY name for an address; None for none, and
    always for this machine. Raises NotConfigured for one that cannot be used (only http:// proxies can)."""
    if base.loopback:
        return None
    named = {
        name.lower(): value for name, value in (environment or os.environ).items() if name[-6:].lower() == "_proxy"
    }
    if not named:
        return None
    address = named.get(f"{base.scheme}_proxy") or named.get("all_proxy")
    if not address or _matches_no_proxy(base, named.get("no_proxy", "")):
        return None
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, None
    if parts is None or not host or parts.scheme != "http":
        raise NotConfigured(
            "the proxy that the environment names cannot be used",
            hint="name one that begins with http:// in HTTPS_PROXY, or except the address with NO_PROXY",
        )
    words = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    return Proxy(host, port or 80, "Basic " + b2a_base64(words.encode(), newline=False).decode() if words else "")


def _matches_no_proxy(base: BaseURL, no_proxy: str) -> bool:
    return any(_entry_matches(word.strip().lower(), base) for word in no_proxy.split(","))


def _entry_matches(entry: str, base: BaseURL) -> bool:
    """Tell whether an entry of NO_PROXY matches an address: `*`, a domain (also `.x.org`, `*.x.org`), a number, a range
    of numbers; each but the range also with a port."""
    if entry in ("", "*"):
        return entry == "*"
    host = base.host.lower()
    if "/" in entry:
        from ipaddress import ip_address, ip_network  # as long as all the rest, and hardly ever needed

        try:
            return ip_address(host) in ip_network(entry, strict=False)
        except ValueError:
            return False
    named, colon, port = entry.rpartition(":")
    if colon and port.isdigit() and (":" not in named or named.endswith("]")):
        if int(port) != base.port:
            return False
        entry = named
    entry = entry.strip("[]").removeprefix("*").lstrip(".")
    return host == entry or host.endswith("." + entry)
