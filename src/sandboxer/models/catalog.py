"""What people write: profiles, manifests, and what both say of secrets, prices and routes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sandboxer.models.base import DurationText, IsolationClass, PricingModel, Written


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
    """Lifetimes. `default` None never expires; `max` None is no cap; `idle` is how long it may be ready without being
    in use (None: for ever), and `idle_action` what follows; `failed` is how long a failed record stays."""

    default: DurationText | None = None
    max: DurationText | None = None
    idle: DurationText | None = None
    idle_action: Literal["destroy", "stop"] = "destroy"
    failed: DurationText = "30m"


class SecretRef(Written, frozen=True, kw_only=True):
    """Where a secret's value is found at provision time: `env:VAR`, `file:/path`, `openbao:mount/path#key` or
    `cmd:PROGRAM WORD...` (its stdout; no shell). Never the value."""

    ref: str
    required: bool = True


NetworkNeed = Literal["none", "internet"]


class Requirements(Written, frozen=True, kw_only=True):
    """What a sandbox must have, whichever extension serves it: met exactly, or refused before anything starts.

    `isolation` is a floor. `vcpu` (virtual processors, at least), `memory_gib` and `disk_gib` (at least), `gpu` a model
    name with an optional count (`T4`, `H100:2`). `network`: `none` means that it reaches nothing outside. Prices are
    decimal strings in US dollars: per hour, and for the whole agreed lifetime."""

    capabilities: list[str] = []
    isolation: IsolationClass | None = None
    network: NetworkNeed | None = None
    vcpu: float | None = None
    memory_gib: float | None = None
    disk_gib: float | None = None
    gpu: str | None = None
    max_usd_per_hour: str | None = None
    max_usd: str | None = None


class RouteSpec(Written, frozen=True, kw_only=True):
    """Which extensions may serve a profile, and by what policy one is chosen.

    `explicit` takes them in the order in which they are listed. `options` are those of one candidate, laid over the
    profile's, which every candidate must understand."""

    strategy: Literal["explicit", "prefer-self-hosted", "lowest-cost", "lowest-latency"] = "explicit"
    candidates: list[str]
    options: dict[str, dict[str, Any]] = {}


class Profile(Written, frozen=True, kw_only=True):
    """A named, versioned recipe."""

    id: str
    version: str
    title: str = ""
    extension: str | None = None
    route: RouteSpec | None = None
    require: Requirements = Requirements()
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


class Price(Written, frozen=True, kw_only=True):
    """What one unit costs for an hour, in US dollars (a decimal string). `included` units are free, and at least
    `minimum` units are billed."""

    usd: str
    included: float = 0
    minimum: float = 0


class PriceTable(Written, frozen=True, kw_only=True):
    """What an extension's sandboxes cost: dated, with its source. `sandbox_hour` is for the sandbox as such; `gpu_hour`
    is by model. An operator's table in config.yaml replaces the one of a manifest as a whole."""

    as_of: str
    source: str
    currency: Literal["USD"] = "USD"
    sandbox_hour: Price | None = None
    vcpu_hour: Price | None = None
    memory_gib_hour: Price | None = None
    disk_gib_hour: Price | None = None
    gpu_hour: dict[str, Price] = {}


class Endpoint(Written, frozen=True, kw_only=True):
    """One address of a provider: the environment variable that sets it, and where it is otherwise (null: nowhere)."""

    variable: str | None = None
    default: str | None = None


class Manifest(Written, frozen=True, kw_only=True):
    """An extension: its class, and what is known of it without importing it.

    `self_hosted` ones have placement hosts; the others are reached over the network by `endpoints`, with `secrets`.
    `max_ttl` is the longest life that the provider grants; `max_live` how many may live at once."""

    id: str
    version: str
    class_: str = msgspec.field(name="class")
    title: str = ""
    isolation: IsolationClaim
    pricing_model: PricingModel = "free"
    self_hosted: bool = True
    secrets: dict[str, SecretRef] = {}
    endpoints: dict[str, Endpoint] = {}
    options: dict[str, Any] = {}
    prices: PriceTable | None = None
    max_ttl: DurationText | None = None
    max_live: int | None = None
