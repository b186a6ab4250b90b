"""What extensions answer and what the store keeps."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sandboxer.models.base import ActorType, IsolationClass, PricingModel, SyscallFilter, Value
from sandboxer.models.catalog import PriceTable, SecretRef


class Handle(Value, frozen=True, kw_only=True):
    """What an adapter must remember of one sandbox: JSON, versioned, no secrets. Only the adapter looks inside."""

    version: int
    data: dict[str, Any]


class Service(Value, frozen=True, kw_only=True):
    """One port of a sandbox, as seen from the placement host."""

    name: str
    container_port: int
    host: str
    port: int
    url: str


class Reachability(Value, frozen=True, kw_only=True):
    """How a consumer reaches a ready sandbox. `kind` is `local` (a path here), `ssh`, or `api`."""

    kind: Literal["local", "ssh", "api"]
    host: str | None = None
    port: int | None = None
    user: str | None = None
    remote_dir: str | None = None
    command: str | None = None
    host_key: str | None = None
    tunnel: dict[str, Any] | None = None
    services: list[Service] = []
    provider_id: str | None = None


class Isolation(Value, frozen=True, kw_only=True):
    """How a sandbox is separated from its host as it really is, with what could not be enforced in `notes`.

    `syscalls`: whether programs inside run under a filter of system calls as tight as Docker's default; `unknown` where
    the backend does not tell, and in records older than the key."""

    class_: IsolationClass = msgspec.field(name="class")
    network: str
    syscalls: SyscallFilter = "unknown"
    notes: list[str] = []


class Resources(Value, frozen=True, kw_only=True):
    """What a sandbox is allotted, and billed for: virtual processors (two to a physical core), GiB of memory and disk,
    `gpus` pieces of the model `gpu`."""

    vcpu: float = 0
    memory_gib: float = 0
    disk_gib: float = 0
    gpu: str | None = None
    gpus: int = 0


class Ready(Value, frozen=True, kw_only=True):
    """What `wait_ready` found. `resources`: the allotment as the backend shows it, where it does; `ends_at`: when the
    backend ends it by itself (unix seconds), where it tells."""

    reachability: Reachability
    isolation: Isolation
    resources: Resources | None = None
    ends_at: float | None = None


class Consumer(Value, frozen=True, kw_only=True):
    """Who asked."""

    actor: ActorType
    name: str


class Owner(Value, frozen=True, kw_only=True):
    """The process that works on a record now; with these three it can be proved dead. `start` is in clock ticks."""

    pid: int
    start: int
    boot_id: str


class Decision(Value, frozen=True, kw_only=True):
    """What was decided about one candidate, and why. `standby`: it could serve, and was not needed; `failed`: it was
    tried, and nothing of it is left; `unknown`: it was tried, and nobody can say what is there. `estimate_usd` is null
    where its price is not known."""

    extension: str
    outcome: Literal["chosen", "standby", "skipped", "failed", "unknown"]
    reason: str
    estimate_usd: str | None = "0"
    host: str | None = None


class Route(Value, frozen=True, kw_only=True):
    """Why this backend and host."""

    strategy: str
    decisions: list[Decision] = []


class Cost(Value, frozen=True, kw_only=True):
    """Money as decimal strings, in US dollars. `estimated_usd` is for the whole agreed lifetime."""

    pricing_model: PricingModel = "free"
    estimated_usd: str = "0"
    actual_usd: str | None = None


class Metering(Value, frozen=True, kw_only=True):
    """The core's own of the money of one sandbox, fixed at create: the price list then in force, what is billed by it,
    and what is reserved of the credits. `funded_until`: a sandbox without a TTL is paid for up to then (unix seconds).
    `estimated`: `resources` are still those that were asked for, not those that the backend showed."""

    prices: PriceTable
    resources: Resources
    reserved_usd: str = "0"
    funded_until: float | None = None
    estimated: bool = True


class Usage(Value, frozen=True, kw_only=True):
    """What a sandbox was used for, settled once, in the write that ends it. Times are unix seconds; `overrun_usd` is
    what it cost beyond what may be charged (after the wish to destroy, or over what was reserved)."""

    usage_id: str
    started_at: float
    ended_at: float
    actual_usd: str
    overrun_usd: str = "0"


class ReducedBilling(Value, frozen=True, kw_only=True):
    """A time for which the backend bills `billed` alone, which is less than the allotment: from `since` to `until`
    (unix seconds; None: it goes on)."""

    since: float
    until: float | None
    billed: Resources


class LastSeen(Value, frozen=True, kw_only=True):
    """What the backend last showed of a sandbox: at `at`, and in the same way since `since` as far as was seen (unix
    seconds). `detail` is its own word, such as `paused at E2B`."""

    presence: Literal["running", "stopped", "absent"]
    detail: str
    since: float
    at: float


class Request(Value, frozen=True, kw_only=True):
    """What was asked for, complete enough to ask again (`recreate`). `snapshot`: of which one it is made."""

    profile: str
    inputs: dict[str, Any] = {}
    host: str | None = None
    name: str | None = None
    labels: dict[str, str] = {}
    ttl: int | None = None
    keep_failed: bool = False
    timeout: int | None = None
    snapshot: str | None = None


class Sandbox(Value, frozen=True, kw_only=True):
    """One record. Everything the outside sees of it is `documents.sandbox_document`; the rest is the core's own.

    `host` is None where the extension has no placement hosts (a provider's cloud)."""

    id: str
    request: Request
    profile: str
    profile_version: str
    extension: str
    state: str
    consumer: Consumer
    host: str | None
    created_at: float
    name: str | None = None
    labels: dict[str, str] = {}
    inputs: dict[str, Any] = {}
    isolation: Isolation | None = None
    reachability: Reachability | None = None
    ready_at: float | None = None
    expires_at: float | None = None
    max_expires_at: float | None = None
    last_active_at: float | None = None
    destroyed_at: float | None = None
    route: Route = Route(strategy="explicit")
    cost: Cost = Cost()
    snapshot_of: str | None = None
    report: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    # the core's own
    handle: Handle | None = None
    options: dict[str, Any] = {}
    failed_ttl: int = 1800
    idle_ttl: int | None = None
    """For so many seconds it may be ready and not in use; None: for ever."""
    idle_action: Literal["destroy", "stop"] = "destroy"
    renewed_at: float | None = None
    """When its end was moved last (unix seconds): whoever does that has use for it."""
    warned_until: float | None = None
    """The end that `sandbox.expiring` has told of (unix seconds): each is told of once."""
    idempotency_key: str | None = None
    fingerprint: str | None = None
    owner: Owner | None = None
    ends_with: Owner | None = None
    """The process whose end it does not outlive (`run`); None: it lives as long as its TTL."""
    secret_refs: dict[str, SecretRef] = {}
    """Where the credentials of its extension are found, so that it can be taken away when its profile has gone."""
    metering: Metering | None = None
    reduced_billing: list[ReducedBilling] = []
    """When less than the allotment was billed, as far as it was seen: in order, without overlap."""
    wished_at: float | None = None
    """When it was first durably known that it shall go (unix seconds): nothing is charged after it."""
    usage: Usage | None = None
    last_seen: LastSeen | None = None
    """Whether it ran when the backend was last asked; None: it was not asked since it was ready."""
    intent: Literal["start", "stop"] | None = None
    """What was begun with it at its backend, and has not been seen to be done."""
    clean: bool = False
    """True once the absence of everything that was made for it has been verified."""
    seq: int = 0
    """How many events this record has had."""


class RecordSummary(Value, frozen=True, kw_only=True):
    """What records are chosen by: a few fields of `Sandbox`, decoded in a fraction of its time."""

    id: str
    profile: str
    state: str
    consumer: Consumer
    created_at: float
    name: str | None = None
    labels: dict[str, str] = {}
    usage: Usage | None = None


class Event(Value, frozen=True, kw_only=True):
    """A fact, recorded with the change it tells of. `status`: pending, sent, parked (refused for good) or kept.
    `sink`: the neighbour it is for."""

    event_id: str
    event_type: str
    occurred_at: str
    actor: str
    summary: str
    detail: dict[str, Any]
    status: Literal["pending", "sent", "parked", "kept"] = "pending"
    note: str | None = None
    sink: Literal["state-hub", "fin-hub"] = "state-hub"
