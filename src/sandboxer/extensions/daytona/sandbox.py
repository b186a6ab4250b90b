"""Read what Daytona's API says of one sandbox, without trusting it. Pure.

Fields come and go between the open server (0.190) and the present one, so only what is needed is read, each with a
value for its absence; the official client refuses a sandbox without `kvm`, which no older server has.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sandboxer.errors import BackendError
from sandboxer.extensions.base import Presence
from sandboxer.models import Resources, Value

Phase = Literal["coming", "up", "broken", "resting", "going", "gone"]

_PHASES: Final[dict[str, Phase]] = {
    "creating": "coming",
    "restoring": "coming",
    "starting": "coming",
    "resuming": "coming",
    "pending_build": "coming",
    "building_snapshot": "coming",
    "pulling_snapshot": "coming",
    "started": "up",
    "resizing": "up",
    "snapshotting": "up",
    "forking": "up",
    "stopping": "resting",
    "stopped": "resting",
    "archiving": "resting",
    "archived": "resting",
    "pausing": "resting",
    "paused": "resting",
    "error": "broken",
    "build_failed": "broken",
    "destroying": "going",
    "destroyed": "gone",
}
"""What a state means for us. One that is not listed is news, and neither up nor gone."""

_PRESENCE: Final[dict[Phase, Presence]] = {
    "coming": "running",
    "up": "running",
    "broken": "stopped",
    "resting": "stopped",
    "going": "stopped",
    "gone": "absent",
}

_CLASSES: Final[Mapping[str, Literal["vm", "container"]]] = {"linux-vm": "vm", "windows": "vm"}


class DaytonaSandbox(Value, frozen=True, kw_only=True):
    """One sandbox as Daytona shows it. Times are unix seconds; `resources` None where it does not say."""

    id: str
    name: str
    state: str
    labels: dict[str, str]
    toolbox: str | None
    error: str | None
    resources: Resources | None
    created_at: float | None
    destroyed_at: float | None
    """When Daytona will destroy it by itself; None for never."""
    sandbox_class: str | None
    blocked: bool
    allow_list: str | None
    public: bool
    snapshot: str | None
    queue_timed_out: bool
    evicted: bool
    auto_delete: int | None = None
    """Minutes that it outlives a stop: 0 for none, negative for good; None where Daytona does not say."""

    @property
    def phase(self) -> Phase | None:
        """What the state means; None for one that is not known."""
        return _PHASES.get(self.state)

    @property
    def presence(self) -> Presence:
        """As the contract names it."""
        return "unknown" if self.phase is None else _PRESENCE[self.phase]

    @property
    def isolation(self) -> Literal["vm", "container"]:
        """The class of isolation by Daytona's own word."""
        return _CLASSES.get(self.sandbox_class or "", "container")

    @property
    def trouble(self) -> str:
        """State and reason, for a message."""
        return f"{self.state}: {self.error}" if self.error else self.state


def view(document: Any, *, asked: str) -> DaytonaSandbox:
    """Parse a sandbox of an answer to `asked`. Raises BackendError for what is none."""
    if not isinstance(document, dict) or not isinstance(document.get("id"), str) or not document["id"]:
        raise BackendError(
            f"Daytona answered {asked} with something that is not a sandbox",
            hint="check DAYTONA_API_URL; a proxy may answer in its place",
            outcome="failed" if asked.startswith("GET ") else "unknown",
        )
    labels = document.get("labels")
    return DaytonaSandbox(
        id=document["id"],
        name=_text(document, "name") or document["id"],
        state=_text(document, "state") or "unknown",
        labels={str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {},
        toolbox=_text(document, "toolboxProxyUrl"),
        error=_text(document, "errorReason"),
        resources=_resources(document),
        created_at=_instant(document, "createdAt"),
        destroyed_at=_instant(document, "autoDestroyAt"),
        sandbox_class=_text(document, "sandboxClass"),
        blocked=document.get("networkBlockAll") is True,
        allow_list=_text(document, "networkAllowList"),
        public=document.get("public") is True,
        snapshot=_text(document, "snapshot"),
        queue_timed_out=bool(document.get("queueTimedOutAt")),
        evicted=bool(document.get("spotEvictedAt")),
        auto_delete=_whole(document, "autoDeleteInterval"),
    )


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) and value else None


def _number(document: Mapping[str, Any], name: str) -> float | None:
    value = document.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None


def _whole(document: Mapping[str, Any], name: str) -> int | None:
    value = document.get(name)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _resources(document: Mapping[str, Any]) -> Resources | None:
    cpu, memory, disk = (_number(document, name) for name in ("cpu", "memory", "disk"))
    if cpu is None or memory is None or disk is None:
        return None
    gpus = int(_number(document, "gpu") or 0)
    model = _text(document, "gpuType") if gpus else None
    return Resources(vcpu=cpu, memory_gib=memory, disk_gib=disk, gpu=model, gpus=gpus)


def _instant(document: Mapping[str, Any], name: str) -> float | None:
    text = _text(document, name)
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)).timestamp()
