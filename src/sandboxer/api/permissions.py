"""Say which role each route needs: the one table that decides. A route without a line in it is closed to everybody, and
fails a test; docs/api.md shows it."""

from __future__ import annotations

from typing import Final, NamedTuple

from sandboxer.models import Role


class Permission(NamedTuple):
    """What a route needs. `changes`: it is noted in the audit, under `action`."""

    role: Role
    action: str
    changes: bool = False


PERMISSIONS: Final[dict[tuple[str, str], Permission]] = {
    ("GET", "/readyz"): Permission("read", "readyz"),
    ("GET", "/openapi.json"): Permission("read", "openapi"),
    ("POST", "/v1/sandboxes"): Permission("use", "create", changes=True),
    ("GET", "/v1/sandboxes"): Permission("read", "list"),
    ("GET", "/v1/sandboxes/{id}"): Permission("read", "get"),
    ("DELETE", "/v1/sandboxes/{id}"): Permission("use", "destroy", changes=True),
    ("POST", "/v1/sandboxes/{id}/recreate"): Permission("use", "recreate", changes=True),
    ("POST", "/v1/sandboxes/{id}/extend-ttl"): Permission("use", "extend-ttl", changes=True),
    ("POST", "/v1/sandboxes/{id}/set-ttl"): Permission("use", "set-ttl", changes=True),
    ("POST", "/v1/sandboxes/{id}/stop"): Permission("use", "stop", changes=True),
    ("POST", "/v1/sandboxes/{id}/start"): Permission("use", "start", changes=True),
    ("POST", "/v1/sandboxes/{id}/rename"): Permission("use", "rename", changes=True),
    ("POST", "/v1/sandboxes/{id}/labels"): Permission("use", "label", changes=True),
    ("POST", "/v1/sandboxes/{id}/exec"): Permission("use", "exec", changes=True),
    ("GET", "/v1/sandboxes/{id}/leases"): Permission("read", "leases"),
    ("POST", "/v1/sandboxes/{id}/leases"): Permission("use", "lease", changes=True),
    ("GET", "/v1/sandboxes/{id}/leases/{lease}"): Permission("read", "show-lease"),
    ("PUT", "/v1/sandboxes/{id}/leases/{lease}"): Permission("use", "extend-lease", changes=True),
    ("POST", "/v1/sandboxes/{id}/leases/{lease}"): Permission("use", "extend-lease", changes=True),
    ("DELETE", "/v1/sandboxes/{id}/leases/{lease}"): Permission("use", "release-lease", changes=True),
    ("POST", "/v1/sandboxes/{id}/snapshots"): Permission("use", "snapshot", changes=True),
    ("GET", "/v1/snapshots"): Permission("read", "snapshots list"),
    ("GET", "/v1/snapshots/{id}"): Permission("read", "snapshots get"),
    ("DELETE", "/v1/snapshots/{id}"): Permission("use", "snapshots delete", changes=True),
    ("POST", "/v1/snapshots/{id}/verify"): Permission("use", "snapshots verify", changes=True),
    ("POST", "/v1/snapshots/{id}/restore"): Permission("use", "restore", changes=True),
    ("POST", "/v1/expire"): Permission("admin", "expire", changes=True),
    ("POST", "/v1/reconcile"): Permission("admin", "reconcile", changes=True),
    ("POST", "/v1/reap-stale"): Permission("admin", "reap-stale", changes=True),
    ("GET", "/v1/stale"): Permission("admin", "inspect stale"),
    ("GET", "/v1/profiles"): Permission("read", "profiles"),
    ("GET", "/v1/extensions"): Permission("read", "extensions"),
    ("GET", "/v1/events"): Permission("read", "events"),
    ("GET", "/v1/hosts/{host}"): Permission("admin", "inspect host"),
    ("POST", "/v1/route/explain"): Permission("read", "explain"),
    ("GET", "/v1/credits"): Permission("read", "credits"),
    ("GET", "/v1/usage"): Permission("read", "usage"),
    ("GET", "/v1/tokens"): Permission("admin", "tokens list"),
    ("POST", "/v1/tokens"): Permission("admin", "tokens create", changes=True),
    ("DELETE", "/v1/tokens/{token}"): Permission("admin", "tokens revoke", changes=True),
    ("GET", "/v1/audit"): Permission("admin", "audit list"),
}
"""By method and path; `/healthz` alone needs no token, and so no role."""

_RANK: Final[dict[Role, int]] = {"read": 0, "use": 1, "admin": 2}


def allows(role: Role, right: Permission) -> bool:
    """Whether a role has a right."""
    return _RANK[role] >= _RANK[right.role]


def permission_of(method: str, path: str) -> Permission | None:
    """The right that a route needs, by its pattern; None for one that the table does not have."""
    return PERMISSIONS.get((method, path))
