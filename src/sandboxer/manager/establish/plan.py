"""Check a request against its profile, and plan what a create will do, before anything is touched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sandboxer.config.catalog import UnresolvedPath, resolve_inputs
from sandboxer.config.paths import working_directory
from sandboxer.errors import Conflict, Internal, Invalid, SandboxerError, from_document
from sandboxer.manager import quotas
from sandboxer.manager.access import check_profile_allowed, consumer_name, operator_actor
from sandboxer.manager.billing import token_budget
from sandboxer.manager.establish.candidates import Candidate, Constraints, find_candidates
from sandboxer.manager.establish.inputs import outside_roots
from sandboxer.manager.services import Services
from sandboxer.manager.snapshots.restore import narrowed
from sandboxer.models import Consumer, Decision, Grant, Profile, Request, Route, Sandbox, Value
from sandboxer.names import check_host, check_key, check_labels, check_name, parse_actor
from sandboxer.timing import format_duration, parse_duration


class CreatePlan(Value, frozen=True, kw_only=True):
    """What a create will do. `inputs` are complete and may hold secrets: it is never stored; `shown_inputs` may be.

    `candidates` are tried in turn; the route's first decisions are those on them. `refusal` is the error document of a
    request that nothing can serve now: it still gives the sandbox that its idempotency key gave before. `roots`, when
    not None, are the directories beneath which path inputs are opened, whoever opens them and whenever.
    `grant`: what the one who asks may do. `one_shot`: it does not outlive the process that creates it.
    `replaces`: the sandbox in whose place it comes, which goes once this one is admitted."""

    request: Request
    consumer: Consumer
    profile: Profile
    candidates: tuple[Candidate, ...]
    route: Route
    inputs: dict[str, Any]
    shown_inputs: dict[str, Any]
    ttl: int | None
    max_ttl: int | None
    failed_ttl: int
    idle_ttl: int | None
    idempotency_key: str | None
    fingerprint: str
    refusal: dict[str, Any] | None = None
    grant: Grant = Grant()
    roots: tuple[str, ...] | None = None
    one_shot: bool = False
    replaces: str | None = None

    @property
    def first(self) -> Candidate:
        """The candidate that is tried first."""
        if not self.candidates:
            raise Internal("a plan that was refused has no candidates")
        return self.candidates[0]

    @property
    def extension(self) -> str:
        """The extension that is tried first."""
        return self.first.extension

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts on which the first extension may be placed; none for a provider's."""
        return tuple(
            candidate.host
            for candidate in self.candidates
            if candidate.extension == self.extension and candidate.host is not None
        )


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and from where: `actor` as `adm:NAME`; `base` is where relative path inputs start; `roots`, when given,
    are the only directories that path inputs may lie below (the server's files are not the caller's); `grant` is what
    they may do."""

    actor: str | None
    base: Path
    roots: Sequence[Path] | None = None
    grant: Grant = Grant()


def make_plan(
    services: Services, request: Request, caller: Caller, *, idempotency_key: str | None, replaces: str | None = None
) -> CreatePlan:
    """Check a request against its profile and what can serve it; raises Invalid, NotFound, Denied, and, when nothing
    can serve it, Unsupported, NotConfigured, InsufficientCredits or Unavailable (with an idempotency key that error is
    kept in the plan instead: what the key gave before is still given).

    `replaces`: the sandbox that goes before the new one comes."""
    check_profile_allowed(caller.grant, request.profile)
    if request.snapshot is None:
        profile = services.profiles.get(request.profile)
    else:
        profile, request = narrowed(services, request.snapshot, request)
    try:
        inputs = resolve_inputs(profile, request.inputs, base=caller.base)
    except UnresolvedPath as error:
        if caller.roots is None:
            raise
        raise outside_roots(error.name) from None  # why not would tell of users, processes and links out there
    if caller.roots is not None:
        _check_roots(profile, inputs, caller.roots)
    if request.name is not None:
        check_name(request.name)
    if request.host is not None:
        check_host(request.host)
    check_labels(request.labels)
    if idempotency_key is not None:
        check_key(idempotency_key)
    consumer = _consumer(services, caller)
    ttl = _ttl(services, profile, request)
    token = token_budget(caller.grant)
    found = find_candidates(
        services, profile, Constraints(host=request.host, ttl=ttl, consumer=consumer, replaces=replaces, token=token)
    )
    if found.error is not None and idempotency_key is None:
        raise found.error
    shown = {key: "(secret)" if profile.inputs[key].secret else value for key, value in inputs.items()}
    return CreatePlan(
        request=msgspec.structs.replace(request, inputs=shown),
        consumer=consumer,
        profile=profile,
        candidates=found.candidates,
        route=Route(strategy=found.strategy, decisions=found.decisions),
        inputs=inputs,
        shown_inputs=shown,
        ttl=ttl,
        max_ttl=_optional(profile.ttl.max),
        failed_ttl=parse_duration(profile.ttl.failed),
        idle_ttl=_optional(profile.ttl.idle),
        idempotency_key=idempotency_key,
        fingerprint=_fingerprint(request, shown, consumer),
        refusal=None if found.error is None else found.error.document(),
        grant=caller.grant,
        roots=None if caller.roots is None else tuple(str(root) for root in caller.roots),
        replaces=replaces,
    )


def make_recreate_plan(
    services: Services, record: Sandbox, *, actor: str | None, grant: Grant, roots: Sequence[Path] | None
) -> CreatePlan:
    """The plan of a new sandbox from the same request as `record`; raises what makes it impossible, before anything is
    destroyed. It stays whose it is, also when somebody does it who may for everybody."""
    profile = services.profiles.get(record.profile)
    hidden = [name for name, spec in profile.inputs.items() if spec.secret and name in record.request.inputs]
    if hidden:
        raise Conflict(
            f"sandbox {record.id} was created with the secret input {hidden[0]!r}, which is not kept",
            hint="create it anew with --input, then destroy this one",
        )
    # A profile with one extension comes back to its host; a route is decided anew.
    host = record.request.host or (None if profile.route is not None else record.host)
    caller = Caller(
        actor=actor or consumer_name(record.consumer),
        base=working_directory(),
        roots=roots,
        grant=msgspec.structs.replace(grant, consumer=None),
    )
    request = msgspec.structs.replace(record.request, host=host)
    plan = make_plan(services, request, caller, idempotency_key=None, replaces=record.id)
    quotas.check(services, plan.consumer, without=record.id)
    return plan


class Choice(Value, frozen=True, kw_only=True):
    """The backend that would be tried first. `host` is null for a provider's; the estimate is in US dollars."""

    extension: str
    host: str | None
    estimate_usd: str | None


class Explanation(Value, frozen=True, kw_only=True):
    """Which backend would serve a request, and what was decided about each (`route explain`). `chosen` is null when
    none can; then `refusal` is the error that a create would give."""

    profile: str
    strategy: str
    decisions: list[Decision]
    chosen: Choice | None
    refusal: dict[str, Any] | None = None


def explain(services: Services, request: Request, caller: Caller) -> Explanation:
    """Who would serve a request, and why; also when nobody would. Raises what `make_plan` raises for a request that is
    wrong."""
    check_profile_allowed(caller.grant, request.profile)
    profile = services.profiles.get(request.profile)
    strategy = profile.route.strategy if profile.route is not None else "explicit"
    try:
        plan = make_plan(services, request, caller, idempotency_key=None)
    except SandboxerError as error:
        if error.details is None or "decisions" not in error.details:
            raise
        refusal = error.document()
        decisions = msgspec.convert(refusal.pop("details")["decisions"], list[Decision])
        return Explanation(profile=profile.id, strategy=strategy, decisions=decisions, chosen=None, refusal=refusal)
    first, decision = plan.first, plan.route.decisions[0]
    return Explanation(
        profile=profile.id,
        strategy=strategy,
        decisions=plan.route.decisions,
        chosen=Choice(extension=first.extension, host=first.host, estimate_usd=decision.estimate_usd),
    )


def plan_document(plan: CreatePlan) -> dict[str, Any]:
    """What a create would do, as a document; raises what keeps it from doing it."""
    if plan.refusal is not None:
        raise from_document(plan.refusal)
    return {
        "dry_run": True,
        "profile": plan.profile.id,
        "profile_version": plan.profile.version,
        "extension": plan.extension,
        "hosts": list(plan.hosts),
        "inputs": plan.shown_inputs,
        "ttl_seconds": plan.ttl,
        "consumer": msgspec.to_builtins(plan.consumer),
        "route": msgspec.to_builtins(plan.route),
        "cost": {
            "pricing_model": "metered" if plan.first.metered else "free",
            "estimated_usd": plan.route.decisions[0].estimate_usd or "0",
            "actual_usd": None,
        },
    }


def _consumer(services: Services, caller: Caller) -> Consumer:
    """Whose it will be: what the token says, else what the request says, else the operator's."""
    kind, name = parse_actor(
        caller.grant.consumer or (operator_actor(services) if caller.actor is None else caller.actor)
    )
    return Consumer(actor=kind, name=name)  # type: ignore[arg-type]  # parse_actor admits only the three types


def _ttl(services: Services, profile: Profile, request: Request) -> int | None:
    longest = _optional(profile.ttl.max)
    if request.ttl is not None:
        if longest is not None and request.ttl > longest:
            raise Invalid(
                f"ttl {format_duration(request.ttl)} is over the {format_duration(longest)} that {profile.id} allows",
                hint=f"give at most --ttl {profile.ttl.max}",
            )
        return request.ttl
    wanted = _optional(services.settings.defaults.ttl)
    if wanted is None:
        return _optional(profile.ttl.default)
    return wanted if longest is None else min(wanted, longest)


def _optional(text: str | int | None) -> int | None:
    return None if text is None else parse_duration(text)


def _fingerprint(request: Request, shown: Mapping[str, Any], consumer: Consumer) -> str:
    """What makes two requests the same for an idempotency key: all that was asked, without secret values."""
    import hashlib  # 7 ms that only a create pays

    asked = msgspec.to_builtins(msgspec.structs.replace(request, inputs=dict(shown), timeout=None))
    if request.snapshot is None:
        del asked["snapshot"]  # fingerprints that were taken before there were snapshots go on to be the same
    text = json.dumps([asked, msgspec.to_builtins(consumer)], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_roots(profile: Profile, inputs: Mapping[str, Any], roots: Sequence[Path]) -> None:
    for name, spec in profile.inputs.items():
        value = inputs.get(name)
        if spec.type != "path" or value is None:
            continue
        if not any(Path(value).is_relative_to(root.resolve()) for root in roots):
            raise outside_roots(name)
