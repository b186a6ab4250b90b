"""Which role a route needs: the one table that decides. A route without a line in it is closed to everybody, and fails
a test; docs/api.md shows it."""

from __future__ import annotations

from typing import Final, NamedTuple

from sandboxer.models import Role


class Right(NamedTuple):
    """What a route needs. `changes`: it is noted in the audit, under `action`."""

    role: Role
    action: str
    changes: bool = False


RIGHTS: Final[dict[tuple[str, str], Right]] = {
    ("GET", "/readyz"): Right("read", "readyz"),
    ("GET", "/openapi.json"): Right("read", "openapi"),
    ("POST", "/v1/sandboxes"): Right("use", "create", changes=True),
    ("GET", "/v1/sandboxes"): Right("read", "list"),
    ("GET", "/v1/sandboxes/{id}"): Right("read", "get"),
    ("DELETE", "/v1/sandboxes/{id}"): Right("use", "destroy", changes=True),
    ("POST", "/v1/sandboxes/{id}/recreate"): Right("use", "recreate", changes=True),
    ("POST", "/v1/sandboxes/{id}/extend-ttl"): Right("use", "extend-ttl", changes=True),
    ("POST", "/v1/sandboxes/{id}/exec"): Right("use", "exec", changes=True),
    ("GET", "/v1/sandboxes/{id}/leases"): Right("read", "leases"),
    ("POST", "/v1/sandboxes/{id}/leases"): Right("use", "lease", changes=True),
    ("GET", "/v1/sandboxes/{id}/leases/{lease}"): Right("read", "show-lease"),
    ("PUT", "/v1/sandboxes/{id}/leases/{lease}"): Right("use", "extend-lease", changes=True),
    ("POST", "/v1/sandboxes/{id}/leases/{lease}"): Right("use", "extend-lease", changes=True),
    ("DELETE", "/v1/sandboxes/{id}/leases/{lease}"): Right("use", "release-lease", changes=True),
    ("POST", "/v1/expire"): Right("admin", "expire", changes=True),
    ("POST", "/v1/reconcile"): Right("admin", "reconcile", changes=True),
    ("GET", "/v1/profiles"): Right("read", "profiles"),
    ("GET", "/v1/extensions"): Right("read", "extensions"),
    ("GET", "/v1/events"): Right("read", "events"),
    ("GET", "/v1/hosts/{host}"): Right("admin", "inspect host"),
    ("POST", "/v1/route/explain"): Right("read", "explain"),
    ("GET", "/v1/credits"): Right("read", "credits"),
    ("GET", "/v1/usage"): Right("read", "usage"),
    ("GET", "/v1/tokens"): Right("admin", "tokens list"),
    ("POST", "/v1/tokens"): Right("admin", "tokens create", changes=True),
    ("DELETE", "/v1/tokens/{token}"): Right("admin", "tokens revoke", changes=True),
    ("GET", "/v1/audit"): Right("admin", "audit list"),
}
"""By method and path; `/healthz` alone needs no token, and so no role."""

_RANK: Final[dict[Role, int]] = {"read": 0, "use": 1, "admin": 2}


def allows(role: Role, right: Right) -> bool:
    """Whether a role has a right."""
    return _RANK[role] >= _RANK[right.role]


def right_of(method: str, path: str) -> Right | None:
    """The right that a route needs, by its pattern; None for one that the table does not have."""
    return RIGHTS.get((method, path))
