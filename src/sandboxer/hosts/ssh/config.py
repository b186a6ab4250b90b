"""From a host's name and its settings to everything that a connection needs, OpenSSH's own configuration included.

What config.yaml says wins. Otherwise `ssh -G` of the installed client answers (so Include, Match and tokens mean what
they mean there); where there is none, paramiko's reader of ssh_config, with Include resolved by us.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sandboxer.errors import Invalid, NotConfigured
from sandboxer.models import HostSettings

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_ADDRESS6 = re.compile(r"[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?")
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@+\\-]{0,254}")
MAX_JUMPS: Final = 8

SshOptions = Mapping[str, Sequence[str]]
"""What ssh_config says: lower-case keyword to its values, in order."""
Ask = Callable[["SshDestination"], SshOptions]
"""Looks a place up in ssh_config."""


@dataclass(frozen=True, slots=True)
class SshDestination:
    """`user@host:port` as it was written."""

    host: str
    user: str | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SshEndpoint:
    """One SSH server and how to reach it. `jumps` come before it, the first one next to us."""

    name: str
    host: str
    port: int
    user: str
    identities: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    identities_only: bool = False
    agent: str | None = None
    known_hosts: tuple[str, ...] = ()
    alias: str | None = None
    host_key: str | None = None
    jumps: tuple[SshEndpoint, ...] = ()
    proxy_command: str | None = None
    connect_timeout: float | None = None

    @property
    def where(self) -> str:
        """For messages: the name, and the address when it is another."""
        address = f"{self.host}:{self.port}"
        return address if self.name == self.host else f"{self.name} ({address})"

    @property
    def lookup_name(self) -> str:
        """The name that stands in known_hosts and in host certificates."""
        return self.alias or self.host


def parse_destination(text: str) -> SshDestination:
    """`[user@]host[:port]`, an IPv6 address with a port in brackets; raises Invalid for anything else."""
    user, at, rest = text.rpartition("@")
    match = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", rest)
    if match is not None:
        host, port = match[1], match[2]
    elif rest.count(":") == 1:
        host, port = rest.split(":")
    else:
        host, port = rest, None
    good_host = _ADDRESS6.fullmatch(host) if ":" in host else _NAME.fullmatch(host)
    good_port = port is None or (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536)
    if good_host is None or not good_port or (at and _USER.fullmatch(user) is None):
        raise Invalid(
            f"{text[:80]!r} is not the name of a host",
            hint="write a name from config.yaml or ~/.ssh/config, or user@host:port (IPv6: user@[address]:port)",
        )
    return SshDestination(host, user if at else None, None if port is None else int(port))


def resolve(name: str, settings: HostSettings, *, ask: Ask, home: str, environ: Mapping[str, str]) -> SshEndpoint:
    """Everything for connecting to host `name`. Raises Invalid for malformed names or values."""
    written = parse_destination(settings.address or name)
    place = SshDestination(written.host, settings.user or written.user, settings.port or written.port)
    jump = settings.proxy_jump
    endpoint = _endpoint(name, place, ask=ask, home=home, environ=environ, jump=jump, depth=0)
    pinned = settings.host_key
    if pinned is not None and not re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}=?", pinned):
        raise Invalid(
            f"host_key of {name} is not a fingerprint", hint="write it like SHA256:... as `ssh-keygen -lf KEY` shows it"
        )
    if pinned is not None:
        endpoint = replace(endpoint, host_key=pinned.rstrip("="))
    if settings.identity is not None:
        endpoint = replace(endpoint, identities=(_path(settings.identity, home),), identities_only=True)
    if settings.certificate is not None:
        endpoint = replace(endpoint, certificates=(_path(settings.certificate, home),))
    if settings.known_hosts is not None:
        endpoint = replace(endpoint, known_hosts=(_path(settings.known_hosts, home),))
    return endpoint


def _endpoint(
    name: str, place: SshDestination, *, ask: Ask, home: str, environ: Mapping[str, str], jump: str | None, depth: int
) -> SshEndpoint:
    if depth > MAX_JUMPS:
        raise Invalid(f"{name} is reached by more than {MAX_JUMPS} jumps", hint="does ProxyJump go round in a circle?")
    options = ask(place)

    def first(key: str) -> str | None:
        values = options.get(key, ())
        return values[0] if values and values[0].lower() != "none" else None

    host = first("hostname") or place.host
    port = place.port or int(first("port") or 22)
    user = place.user or first("user") or _own_name(environ)
    tokens = {"%": "%", "h": host, "p": str(port), "r": user, "n": place.host, "u": _own_name(environ), "d": home}
    tokens["i"] = str(os.getuid())
    tokens["k"] = first("hostkeyalias") or place.host

    def paths(key: str) -> tuple[str, ...]:
        values = options.get(key, ())
        return tuple(_path(expand(value, tokens, environ), home) for value in values if value.lower() != "none")

    known = [expand(part, tokens, environ) for value in options.get("userknownhostsfile", ()) for part in value.split()]
    known += [part for value in options.get("globalknownhostsfile", ()) for part in value.split()]
    jumps = (jump if jump is not None else first("proxyjump")) or "none"
    command = first("proxycommand")
    alias, timeout = first("hostkeyalias"), first("connecttimeout")
    return SshEndpoint(
        name=name,
        host=host,
        port=port,
        user=user,
        identities=paths("identityfile"),
        certificates=paths("certificatefile"),
        identities_only=first("identitiesonly") == "yes",
        agent=_agent(options.get("identityagent", ()), tokens, environ, home),
        known_hosts=tuple(_path(path, home) for path in known if path.lower() != "none"),
        alias=alias,
        jumps=_jumps(jumps, ask=ask, home=home, environ=environ, depth=depth),
        proxy_command=expand(command, tokens, environ) if command and jumps == "none" else None,
        connect_timeout=float(timeout) if timeout and timeout.isdigit() and timeout != "0" else None,
    )


def _jumps(text: str, *, ask: Ask, home: str, environ: Mapping[str, str], depth: int) -> tuple[SshEndpoint, ...]:
    if text.lower() == "none":
        return ()
    found: list[SshEndpoint] = []
    for position, part in enumerate(text.split(",")):
        place = parse_destination(part.strip().removeprefix("ssh://"))
        # a chain is complete as it is written: only its first member may itself be behind another
        own = None if position == 0 else "none"
        hop = _endpoint(place.host, place, ask=ask, home=home, environ=environ, jump=own, depth=depth + 1)
        found += [*hop.jumps, replace(hop, jumps=())]
    return tuple(found)


def _own_name(environ: Mapping[str, str]) -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return environ.get("USER", "root")


def _path(text: str, home: str) -> str:
    if text == "~" or text.startswith("~/"):
        return home + text[1:]
    return text if text.startswith("/") else str(Path(text).absolute())


def expand(text: str, tokens: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """Percent tokens and `${VAR}` as ssh_config(5) has them; unknown ones stay."""
    done = re.sub(r"%(.)", lambda m: tokens.get(m[1], m[0]), text)
    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", lambda m: environ.get(m[1], m[0]), done)


def _agent(values: Sequence[str], tokens: Mapping[str, str], environ: Mapping[str, str], home: str) -> str | None:
    value = values[0] if values else "SSH_AUTH_SOCK"
    if value == "SSH_AUTH_SOCK":
        return environ.get("SSH_AUTH_SOCK") or None
    if value.lower() == "none":
        return None
    if value.startswith("$") and not value.startswith("${"):
        return environ.get(value[1:]) or None
    return _path(expand(value, tokens, environ), home)


def parse_dump(text: str) -> dict[str, list[str]]:
    """What `ssh -G` prints: a keyword and its value on each line."""
    options: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key:
            options.setdefault(key.lower(), []).append(value)
    return options


def dump_argv(place: SshDestination, *, config: str | None) -> list[str]:
    """The words that make the OpenSSH client tell what it would do. The host was checked by `parse_destination`, and
    `--` stands before it all the same."""
    words = ["ssh", "-G"]
    if config is not None:
        words += ["-F", config]
    if place.port is not None:
        words += ["-p", str(place.port)]
    if place.user is not None:
        words += ["-l", place.user]
    return [*words, "--", place.host]


def read_without_client(place: SshDestination, *, config: str | None, home: str) -> dict[str, list[str]]:
    """The same from the files alone, by paramiko: what `ssh -G` would say where there is no OpenSSH client."""
    import io

    import paramiko

    files = [config] if config is not None else [f"{home}/.ssh/config", "/etc/ssh/ssh_config"]
    text = "\nHost *\n".join(_with_includes(Path(file), base=Path(file).parent, depth=0) for file in files)
    try:
        parsed = paramiko.SSHConfig.from_file(io.StringIO(text))
        found = parsed.lookup(place.host)
    except (paramiko.ConfigParseError, paramiko.CouldNotCanonicalize, ImportError) as error:
        raise NotConfigured(
            f"the ssh configuration cannot be read without the OpenSSH client: {error}",
            hint="install openssh-client, or describe the host in config.yaml",
        ) from error
    options = {key: list(value) if isinstance(value, list) else [str(value)] for key, value in found.items()}
    defaults = {
        "identityfile": [f"~/.ssh/{name}" for name in ("id_rsa", "id_ecdsa", "id_ed25519")],
        "userknownhostsfile": ["~/.ssh/known_hosts ~/.ssh/known_hosts2"],
        "globalknownhostsfile": ["/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"],
    }
    return {**defaults, **options}


def _with_includes(file: Path, *, base: Path, depth: int) -> str:
    if depth > 16:
        raise Invalid(f"{file} is included too deep", hint="does an Include in ~/.ssh/config include itself?")
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    out: list[str] = []
    block = "Host *"
    for line in lines:
        match = re.match(r"\s*(\w+)(?:\s*=\s*|\s+)(.*)", line)
        keyword = match[1].lower() if match else ""
        if keyword in ("host", "match"):
            block = line
        if match is None or keyword != "include":
            out.append(line)
            continue
        for pattern in match[2].split():
            where = Path(pattern.strip('"')).expanduser()
            anchor, relative = (Path("/"), str(where)[1:]) if where.is_absolute() else (base, str(where))
            for found in sorted(anchor.glob(relative)):
                # a file's own Host lines end where the file ends
                out += [_with_includes(found, base=base, depth=depth + 1), block]
    return "\n".join(out)
