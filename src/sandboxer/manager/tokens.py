"""Make, list, revoke and verify tokens of the HTTP API.

A token of ours is 40 random characters, 238 bits: nobody finds it by trying, so a plain SHA-256 is kept of it and no
slow hash, which would be paid at every request (decision 0023)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from sandboxer import secrets
from sandboxer.errors import Conflict, Invalid, NotFound
from sandboxer.manager.services import Services
from sandboxer.models import Grant, Role, SecretRef, Token, TokenSettings, Value
from sandboxer.names import LABEL_KEY, new_token, new_token_id, parse_actor
from sandboxer.payments.prices import parse_amount, usd_text
from sandboxer.timing import Deadline, parse_time, rfc3339

CONFIG_ID_PREFIX: Final = "config:"
"""How the ids of tokens of config.yaml begin."""
API_TOKEN: Final = "api.token"  # noqa: S105 - the name of the setting
_OURS: Final = re.compile(rb"sbx_[A-Za-z0-9]*")


class TokenDocument(Value, frozen=True, kw_only=True):
    """A token as the outside sees it (`tokens list`). No `profiles`: all; `budget` in US dollars."""

    id: str
    name: str
    role: Role
    consumer: str | None
    profiles: list[str]
    budget: str | None
    state: str
    created_at: str | None
    expires_at: str | None
    revoked_at: str | None
    source: str


class NewToken(TokenDocument, frozen=True, kw_only=True):
    """A token that was made (`tokens create`). `token` is told this once."""

    token: str


class TokenRequest(Value, frozen=True, kw_only=True):
    """A token to be made: `consumer` as `agt:NAME`, `budget` in US dollars, `ttl` in seconds."""

    name: str
    role: str
    consumer: str | None = None
    profiles: Sequence[str] = ()
    budget: str | None = None
    ttl: int | None = None


def create_token(services: Services, wanted: TokenRequest) -> NewToken:
    """Make a token. Raises Invalid, and NotFound for a profile that is not there."""
    role = check_role(wanted.role)
    if not LABEL_KEY.fullmatch(wanted.name):
        raise Invalid(
            f"{wanted.name[:80]!r} is not a name for a token", hint="use letters, digits, '.', '_', '/' and '-'"
        )
    check_consumer(role, wanted.consumer)
    for profile in wanted.profiles:
        services.profiles.get(profile)
    budget = None if wanted.budget is None else usd_text(parse_amount(wanted.budget, what="budget"))
    at, text = services.clock(), new_token()
    token = Token(
        id=new_token_id(),
        name=wanted.name,
        role=role,
        digest=digest_of(text.encode()),
        created_at=at,
        consumer=wanted.consumer,
        profiles=list(dict.fromkeys(wanted.profiles)),
        budget=budget,
        expires_at=None if wanted.ttl is None else at + wanted.ttl,
    )
    services.tokens.add(token)
    return NewToken(**msgspec.structs.asdict(_document(token, at)), token=text)


def list_tokens(services: Services) -> Sequence[TokenDocument]:
    """All tokens, those of config.yaml first; never the tokens themselves."""
    at = services.clock()
    written = [_written(one, at) for one in services.settings.api.tokens]
    return [*written, *(_document(one, at) for one in services.tokens.known().by_id.values())]


def revoke_token(services: Services, text: str) -> TokenDocument:
    """End a token by its id, or by its name where only one has that. Raises NotFound, and Conflict for one of
    config.yaml or a name that several have."""
    names = {one.name for one in services.settings.api.tokens}
    known = services.tokens.known().by_id
    at = services.clock()
    if text == API_TOKEN or (text.removeprefix(CONFIG_ID_PREFIX) in names and text not in known):
        raise Conflict(
            f"token {text[:80]!r} is written in config.yaml", hint="take it out there, and start the server again"
        )
    named = [one for one in known.values() if one.name == text and one.state(at) == "live"]
    if text not in known and len(named) > 1:
        ids = ", ".join(one.id for one in named[:5])
        raise Conflict(f"{len(named)} tokens have the name {text[:80]!r}: {ids}", hint="give an id")
    if text not in known and not named:
        raise NotFound(f"no token {text[:80]!r}", hint="run `sandboxer tokens list`")
    return _document(services.tokens.revoke(text if text in known else named[0].id), at)


def check_role(text: str) -> Role:
    """A role; raises Invalid."""
    roles: Mapping[str, Role] = {"read": "read", "use": "use", "admin": "admin"}
    if text not in roles:
        raise Invalid(f"there is no role {text[:40]!r}", hint="give --role read, use or admin")
    return roles[text]


def check_consumer(role: Role, consumer: str | None) -> None:
    """Raises Invalid when a role needs a consumer, or the consumer is none."""
    if consumer is not None:
        parse_actor(consumer, what="consumer")
    elif role != "admin":
        raise Invalid(f"a token of role {role} needs a consumer", hint="give --consumer agt:NAME, whose it is to be")


def digest_of(token: bytes) -> str:
    """What is kept of a token: 64 hexadecimal digits."""
    from hashlib import sha256

    return sha256(token).hexdigest()


def _document(token: Token, at: float) -> TokenDocument:
    return TokenDocument(
        id=token.id,
        name=token.name,
        role=token.role,
        consumer=token.consumer,
        profiles=token.profiles,
        budget=token.budget,
        state=token.state(at),
        created_at=rfc3339(token.created_at),
        expires_at=rfc3339(token.expires_at),
        revoked_at=rfc3339(token.revoked_at),
        source="tokens.json",
    )


def _written(one: TokenSettings, at: float) -> TokenDocument:
    token = _of_settings(one, "")
    return msgspec.structs.replace(_document(token, at), created_at=None, source="config.yaml")


def _of_settings(one: TokenSettings, digest: str) -> Token:
    return Token(
        id=CONFIG_ID_PREFIX + one.name,
        name=one.name,
        role=one.role,
        digest=digest,
        created_at=0.0,
        consumer=one.consumer,
        profiles=one.profiles,
        budget=one.budget,
        expires_at=None if one.expires is None else parse_time(one.expires, what="expires"),
    )


class TokenVerifier:
    """The tokens that a running server takes: those of its configuration, read once, and those of `tokens.json`, read
    at each request, so that what was made or revoked since counts at once.

    Raises, like the file: who cannot be recognized is not let in."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._secrets: list[secrets.Secret] = []  # kept, so that no error of ours says them
        self._fixed: dict[str, Token] = {}
        if (plain := services.settings.api.token) is not None:
            self._keep(Token(id=API_TOKEN, name=API_TOKEN, role="admin", digest="", created_at=0.0), plain)
        for one in services.settings.api.tokens:
            value = secrets.resolve(
                f"api.tokens.{one.name}",
                SecretRef(ref=one.ref),
                services.environment,
                openbao=services.settings.openbao,
                deadline=Deadline(services.limits.resolve_token),
            )
            if value is not None:
                self._keep(_of_settings(one, ""), value.reveal())

    def _keep(self, token: Token, value: str) -> None:
        self._secrets.append(secrets.Secret(value))
        digest = digest_of(value.encode())
        if digest in self._fixed:
            raise Invalid(
                f"{self._fixed[digest].id} and {token.id} are the same token", hint="give each a value of its own"
            )
        self._fixed[digest] = msgspec.structs.replace(token, digest=digest)

    @property
    def closed(self) -> bool:
        """Whether calls without a token are refused: there is one that lives, or has expired. Only revoking the last
        one opens a server again, and never the end of its time."""
        if self._fixed:
            return True
        at = self._services.clock()
        return any(one.state(at) != "revoked" for one in self._services.tokens.known().by_id.values())

    def grant(self, token: bytes) -> Grant | None:
        """What the bearer of a token may do; None for one that does not count."""
        digest = digest_of(token)
        found = _same(self._fixed, digest) or _same(self._services.tokens.known().by_digest, digest)
        return found.grant if found is not None and found.state(self._services.clock()) == "live" else None


def _same(tokens: Mapping[str, Token], digest: str) -> Token | None:
    """The token with this digest. Nobody chooses a digest, so finding it in a table tells nothing by its time; that it
    is the same is then compared in constant time."""
    import hmac  # only servers compare

    found = tokens.get(digest)
    return found if found is not None and hmac.compare_digest(found.digest, digest) else None


def looks_like_ours(value: bytes) -> bool:
    """Whether somebody sends one of our tokens, whatever became of it."""
    return _OURS.fullmatch(value) is not None


def as_json(documents: Sequence[TokenDocument]) -> list[dict[str, Any]]:
    """As JSON values."""
    return [msgspec.to_builtins(one) for one in documents]
