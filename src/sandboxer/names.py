"""Identifiers, labels, actors and user-given names: how they look, and who may make them."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterable, Mapping

from sandboxer.errors import Invalid

ID = re.compile(r"[a-z][a-z0-9]{11}")
SNAPSHOT_ID = re.compile(r"snap-[a-z0-9]{12}")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
LABEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
HOST = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.@:%\[\]-]{0,254}")
ACTOR = re.compile(r"(adm|agt|atm):([A-Za-z0-9][A-Za-z0-9._@/+-]{0,127})")
SIZE = re.compile(r"(\d{1,12})([KMGT]?)(?:iB|B)?", re.IGNORECASE | re.ASCII)
PREFIX = "sbx-"
SNAPSHOT_PREFIX = "snap-"
TOKEN_PREFIX = "sbx_"  # noqa: S105 - how tokens begin
MAX_KEY = 255
"""The longest idempotency key, in characters."""
MIN_PREFIX = 4
"""The shortest part of an id that is accepted for the whole."""

LABEL_ID = "sandboxer.id"
LABEL_INSTALL = "sandboxer.install"
LABEL_EXPIRES = "sandboxer.expires"
LABEL_PROFILE = "sandboxer.profile"
LABEL_EXTENSION = "sandboxer.extension"
MARKER_FILE = ".sandboxer.json"
"""The file in a sandbox's directory on a host that carries the labels."""

_ALPHABET = string.ascii_lowercase + string.digits


def new_id() -> str:
    """A fresh sandbox id: 12 characters, 61 bits."""
    return random_text(string.ascii_lowercase, 1) + random_text(_ALPHABET, 11)


def new_snapshot_id() -> str:
    """A fresh id of a snapshot: `snap-` and what an id of a sandbox looks like, so that it has a lock of its own."""
    return SNAPSHOT_PREFIX + new_id()


def new_token() -> str:
    """A fresh token of the HTTP API: 40 random characters behind `sbx_`, 238 bits."""
    return TOKEN_PREFIX + random_text(string.ascii_letters + string.digits, 40)


def new_token_id() -> str:
    """A fresh id of a token, which is no secret: `tok-` and 12 characters."""
    return "tok-" + random_text(_ALPHABET, 12)


def random_text(alphabet: str, count: int) -> str:
    """Random characters, each equally likely. (The `secrets` module costs 7 ms of start-up.)"""
    fair = 256 - 256 % len(alphabet)
    chosen = ""
    while len(chosen) < count:
        chosen += "".join(alphabet[byte % len(alphabet)] for byte in os.urandom(32) if byte < fair)
    return chosen[:count]


def resource_name(sandbox_id: str) -> str:
    """What everything made for a sandbox is called on any backend."""
    return PREFIX + sandbox_id


def sandbox_id_of(name: str) -> str | None:
    """The id in a resource name, or None when the name is not one of ours."""
    rest = name.removeprefix(PREFIX)
    return rest if rest != name and ID.fullmatch(rest) else None


def check_name(name: str) -> str:
    """A sandbox's `--name`; raises Invalid. A name that looks like an id would make `get` ambiguous."""
    if not NAME.fullmatch(name):
        raise Invalid(
            f"name {name[:80]!r} is not allowed",
            hint="use 1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit",
        )
    if ID.fullmatch(name) or SNAPSHOT_ID.fullmatch(name):
        raise Invalid(f"name {name!r} looks like an id", hint="choose a name that is not 12 lower-case characters")
    return name


def check_snapshot_name(name: str) -> str:
    """A snapshot's `--name`; raises Invalid, also for the beginning of an id: ids come first, and who sees all
    would get another's."""
    check_name(name)
    if name.startswith(SNAPSHOT_PREFIX) or (len(name) >= MIN_PREFIX and SNAPSHOT_PREFIX.startswith(name)):
        raise Invalid(f"name {name!r} looks like an id of a snapshot", hint="choose a name that does not begin so")
    return name


def check_key(key: str) -> str:
    """An idempotency key; raises Invalid."""
    if not 0 < len(key) <= MAX_KEY or not key.isprintable():
        raise Invalid("the idempotency key is not allowed", hint=f"use 1 to {MAX_KEY} printable characters")
    return key


def check_env_name(name: str) -> str:
    """The name of an environment variable; raises Invalid."""
    if not ENV_NAME.fullmatch(name):
        raise Invalid(f"{name[:80]!r} is not the name of an environment variable", hint="use letters, digits and '_'")
    return name


def check_service(name: str) -> str:
    """The name of a service; raises Invalid."""
    if not SERVICE.fullmatch(name):
        raise Invalid(f"{name[:80]!r} is not the name of a service", hint="see `sandboxer get ID` for its services")
    return name


def check_host(name: str) -> str:
    """The name of a placement host: `local`, an alias, or `user@host:port`; raises Invalid."""
    if not HOST.fullmatch(name):
        raise Invalid(
            f"{name[:80]!r} is not a host",
            hint="use local, a name from config.yaml or ~/.ssh/config, or user@host:port",
        )
    return name


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """A user's labels; raises Invalid. The `sandboxer.` namespace is ours."""
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key) or key.startswith("sandboxer."):
            raise Invalid(
                f"label key {key[:80]!r} is not allowed",
                hint="use letters, digits, '.', '_', '/' and '-'; keys that start with 'sandboxer.' are reserved",
            )
        if len(value) > 256 or not value.isprintable():
            raise Invalid(f"the value of label {key!r} is not allowed", hint="use up to 256 printable characters")
    if len(labels) > 64:
        raise Invalid(f"{len(labels)} labels are too many", hint="use at most 64")
    return dict(labels)


def parse_actor(text: str, *, what: str = "actor") -> tuple[str, str]:
    """`adm:ops` as ("adm", "ops"); raises Invalid, which calls it `what`."""
    match = ACTOR.fullmatch(text)
    if match is None:
        raise Invalid(
            f"{what} {text[:80]!r} is not TYPE:NAME",
            hint="use adm:NAME (a person), agt:NAME (an agent) or atm:NAME (automation)",
        )
    return match[1], match[2]


def plain_actor_name(user: str) -> str:
    """The name of a user of the operating system as an actor's: what is not allowed there becomes `-`."""
    name = re.sub(r"[^A-Za-z0-9._@/+-]", "-", user)[:128]
    return name if name[:1].isalnum() else f"x{name}"[:128]


def parse_pairs(pairs: Iterable[str], *, what: str) -> dict[str, str]:
    """`["K=V", ...]` as a mapping; raises Invalid on a missing `=` or a key given twice."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Invalid(f"{what} {pair[:80]!r} is not KEY=VALUE", hint=f"write it as --{what} KEY=VALUE")
        if key in found:
            raise Invalid(f"{what} {key!r} is given twice", hint="give each key once")
        found[key] = value
    return found


def parse_label_changes(words: Iterable[str]) -> dict[str, str | None]:
    """`["K=V", "K-", ...]` as values to set, and None for labels to take away; raises Invalid."""
    found: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            if not word.endswith("-"):
                raise Invalid(
                    f"{word[:80]!r} changes no label", hint="write KEY=VALUE to set one, KEY- to take it away"
                )
            key = word[:-1]
        if key in found:
            raise Invalid(f"label {key[:80]!r} is given twice", hint="give each key once")
        found[key] = value if equals else None
    return found


def parse_size(text: str, *, what: str) -> int:
    """Bytes in `500M`, `8GiB`, `65536` (powers of 1024); raises Invalid."""
    match = SIZE.fullmatch(text)
    if match is None:
        raise Invalid(f"{what} {text[:40]!r} is not a size", hint=f"write it like {what} 500M or {what} 20G")
    return int(match[1]) << 10 * " KMGT".index(match[2].upper() or " ")
