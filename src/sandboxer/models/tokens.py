"""Who may do what: tokens as they are kept, what they grant, and what is noted of each change."""

from __future__ import annotations

from typing import Literal

import msgspec

from sandboxer.models.base import Role, Value


class Grant(Value, frozen=True, kw_only=True):
    """What the one who asks may do. The default is the operator at the command line: everything.

    `consumer` (`agt:builder`): what it asks for is this consumer's, whatever the request says, and without the role
    `admin` it sees nothing else. No `profiles`: all. `budget` is the token's own, in US dollars."""

    role: Role = "admin"
    consumer: str | None = None
    token: str | None = None
    profiles: tuple[str, ...] = ()
    budget: str | None = None

    @property
    def everything(self) -> bool:
        """Whether every consumer's sandboxes are its to see."""
        return self.role == "admin"


class Token(Value, frozen=True, kw_only=True):
    """One token as `tokens.json` keeps it: never the token, only its SHA-256. Times are unix seconds."""

    id: str
    name: str
    role: Role
    digest: str
    created_at: float
    consumer: str | None = None
    profiles: list[str] = []
    budget: str | None = None
    expires_at: float | None = None
    revoked_at: float | None = None

    @property
    def grant(self) -> Grant:
        """What its bearer may do."""
        return Grant(
            role=self.role,
            consumer=self.consumer,
            token=self.id,
            profiles=tuple(self.profiles),
            budget=self.budget,
        )

    def state(self, at: float) -> Literal["live", "expired", "revoked"]:
        """Whether it counts at an instant (unix seconds)."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= at else "live"


class AuditEntry(Value, frozen=True, kw_only=True):
    """One line of the audit: who wanted to change what, from where, and what came of it (`ok`, or an error's code).

    `target` is null for what concerns no single thing; `address` is the peer's, `token` the id of the token."""

    at: str
    actor: str
    action: str
    target: str | None
    outcome: str
    from_: str = msgspec.field(name="from")
    address: str | None = None
    token: str | None = None
