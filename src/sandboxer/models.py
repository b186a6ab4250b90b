"""What crosses a boundary: recipes, manifests, handles, reachability. Frozen; decoded strictly; cheap to import.

Everything is a msgspec Struct: decoding checks types and refuses unknown keys where a person wrote the document,
and the JSON Schemas in docs/schemas come from these classes (docs/decisions/0001-msgspec-records.md).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """A record of ours, read from our own documents."""


class Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A document that a person wrote: unknown keys are errors."""


ActorType = Literal["adm", "agt", "atm"]
IsolationClass = Literal["none", "process", "namespace", "container", "vm", "microvm", "remote"]
PricingModel = Literal["free", "metered"]
DurationText = str | int


# -- profiles and manifests ---------------------------------------------------------------------------------------


class InputSpec(Written, frozen=True, kw_only=True):
    """One input of a profile. `path` inputs are made absolute; `secret` ones never reach events or documents."""

    type: Literal["string", "path", "int", "bool"] = "string"
    required: bool = False
    description: str = ""
    default: str | int | bool | None = None
    secret: bool = False
    choices: list[str] | None = None


class PlacementSpec(Written, frozen=True, kw_only=True):
    """Where a profile wants to run: host names, preferred first."""

    hosts: list[str] = []


class TtlSpec(Written, frozen=True, kw_only=True):
    """Lifetimes. `default` None never expires; `max` None is no cap; `failed` is how long a failed record stays."""

    default: DurationText | None = None
    max: DurationText | None = None
    idle: DurationText | None = None
    failed: DurationText = "30m"


class SecretRef(Written, frozen=True, kw_only=True):
    """Where a secret's value is found at provision time: `env:VAR` or `file:/path`. Never the value."""

    ref: str
    required: bool = True


class RouteSpec(Written, frozen=True, kw_only=True):
    """Which extensions may serve a profile, and by what policy one is chosen."""

    strategy: Literal["explicit", "prefer-self-hosted", "lowest-cost", "lowest-latency"] = "explicit"
    candidates: list[str]


class Profile(Written, frozen=True, kw_only=True):
    """A named, versioned recipe."""

    id: str
    version: str
    title: str = ""
    extension: str | None = None
    route: RouteSpec | None = None
    placement: PlacementSpec = PlacementSpec()
    ttl: TtlSpec = TtlSpec()
    inputs: dict[str, InputSpec] = {}
    options: dict[str, Any] = {}
    secrets: dict[str, SecretRef] = {}
    pricing_model: PricingModel = "free"
    self_check: bool = False


class IsolationClaim(Written, frozen=True, kw_only=True):
    """What an extension claims of its isolation, before anything is measured."""

    class_: IsolationClass = msgspec.field(name="class")
    notes: list[str] = []


class Manifest(Written, frozen=True, kw_only=True):
    """An extension: its class, and what is known of it without importing it."""

    id: str
    version: str
    class_: str = msgspec.field(name="class")
    title: str = ""
    isolation: IsolationClaim
    pricing_model: PricingModel = "free"
    self_hosted: bool = True
    secrets: dict[str, SecretRef] = {}
    options: dict[str, Any] = {}


# -- configuration ------------------------------------------------------------------------------------------------


class HostSettings(Written, frozen=True, kw_only=True):
    """One placement host of config.yaml. Every key is optional; `address` None means the host's own name."""

    address: str | None = None
    user: str | None = None
    port: int | None = None
    identity: str | None = None
    certificate: str | None = None
    known_hosts: str | None = None
    host_key: str | None = None
    proxy_jump: str | None = None
    work_dir: str | None = None
    compose: str | None = None
    env: dict[str, str] = {}


class Defaults(Written, frozen=True, kw_only=True):
    """Values used where a request gives none."""

    profile: str = "profile.sandbox-canary"
    host: str | None = None
    ttl: DurationText | None = None
    actor: str | None = None


class Endpoint(Written, frozen=True, kw_only=True):
    """A neighbour's address and token; off when `url` is None."""

    url: str | None = None
    token: str | None = None


class ApiSettings(Written, frozen=True, kw_only=True):
    """The HTTP shell."""

    token: str | None = None
    host: str = "127.0.0.1"
    port: int = 8377
    allowed_roots: list[str] = []


class Settings(Written, frozen=True, kw_only=True):
    """config.yaml, with the environment laid over it."""

    hosts: dict[str, HostSettings] = {}
    defaults: Defaults = Defaults()
    state_hub: Endpoint = Endpoint()
    fin_hub: Endpoint = Endpoint()
    api: ApiSettings = ApiSettings()


# -- what an extension answers ------------------------------------------------------------------------------------


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
    """How a sandbox is separated from its host as it really is, with what could not be enforced in `notes`."""

    class_: IsolationClass = msgspec.field(name="class")
    network: str
    notes: list[str] = []


class Ready(Value, frozen=True, kw_only=True):
    """What `wait_ready` found."""

    reachability: Reachability
    isolation: Isolation


# -- the record ---------------------------------------------------------------------------------------------------


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
    """What was decided about one candidate, and why."""

    extension: str
    outcome: Literal["chosen", "skipped", "failed", "unknown"]
    reason: str
    estimate_usd: str | None = "0"
    host: str | None = None


class Route(Value, frozen=True, kw_only=True):
    """Why this backend and host."""

    strategy: str
    decisions: list[Decision] = []


class Cost(Value, frozen=True, kw_only=True):
    """Money as decimal strings, in US dollars."""

    pricing_model: PricingModel = "free"
    estimated_usd: str = "0"
    actual_usd: str | None = None


class Request(Value, frozen=True, kw_only=True):
    """What was asked for, complete enough to ask again (`recreate`)."""

    profile: str
    inputs: dict[str, Any] = {}
    host: str | None = None
    name: str | None = None
    labels: dict[str, str] = {}
    ttl: int | None = None
    keep_failed: bool = False
    timeout: int | None = None


class Sandbox(Value, frozen=True, kw_only=True):
    """One record. Everything the outside sees of it is `documents.sandbox_document`; the rest is the core's own."""

    id: str
    request: Request
    profile: str
    profile_version: str
    extension: str
    state: str
    consumer: Consumer
    host: str
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
    idempotency_key: str | None = None
    fingerprint: str | None = None
    owner: Owner | None = None
    clean: bool = False
    """True once the absence of everything that was made for it has been verified."""
    seq: int = 0
    """How many events this record has had."""


class Event(Value, frozen=True, kw_only=True):
    """A fact, recorded with the change it tells of. `status`: pending, sent, parked (refused for good) or kept."""

    event_id: str
    event_type: str
    occurred_at: str
    actor: str
    summary: str
    detail: dict[str, Any]
    status: Literal["pending", "sent", "parked", "kept"] = "pending"
    note: str | None = None
