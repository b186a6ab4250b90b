"""Select the order in which candidates are tried, and decide on every one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from sandboxer.errors import InsufficientCredits, Invalid, NotConfigured, SandboxerError, Unavailable, Unsupported
from sandboxer.models import Decision, IsolationClass, Requirements
from sandboxer.routing.circuit_breaker import Circuit
from sandboxer.routing.requirements import ParsedRequirements, parse_requirements, unmet
from sandboxer.timing import format_duration

Strategy = Literal["explicit", "prefer-self-hosted", "lowest-cost", "lowest-latency"]
ExclusionKind = Literal[
    "host", "off", "installation", "requirement", "ttl", "price", "credential", "budget", "cap", "health"
]
"""Why a candidate is passed over."""

_ZERO: Final = Decimal(0)
_HINTS: Final[dict[ExclusionKind, str]] = {
    "host": "leave --host away, or choose a profile that runs on hosts",
    "off": "set extensions.NAME.enabled in config.yaml",
    "installation": "run `sandboxer extensions list` to see what there is",
    "requirement": "see `require` in the profile, and docs/routing.md for what each extension can promise",
    "ttl": "give a shorter --ttl",
    "price": "set extensions.NAME.prices in config.yaml",
    "credential": "run `sandboxer doctor`",
    "budget": "see `sandboxer credits show`; then `sandboxer credits add AMOUNT`, or destroy what is not needed",
    "cap": "destroy one of its sandboxes first: run `sandboxer list`",
    "health": "try again in a minute; run `sandboxer route explain` to see what is known",
}


class CandidateFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one candidate before anything is touched.

    `host` is None where there are no placement hosts, and `placed` says why this host. The fields that are words or
    None tell what stands in the way: `misplaced` a host was asked for that it cannot have, `absent` it cannot be
    loaded, `unfit` it cannot give the required network or resources, `unpriced` its price list lacks something,
    `missing` a credential, `uncovered` money. Prices are in US dollars, None where they are not known;
    `create_seconds` is measured, None when it never was."""

    extension: str
    host: str | None = None
    placed: str = ""
    self_hosted: bool = True
    isolation: IsolationClass = "none"
    capabilities: frozenset[str] = frozenset()
    enabled: bool = True
    misplaced: str | None = None
    absent: str | None = None
    unfit: str | None = None
    unpriced: str | None = None
    missing: str | None = None
    missing_hint: str = ""
    uncovered: str | None = None
    usd_per_hour: Decimal | None = None
    estimated_usd: Decimal | None = None
    max_ttl: int | None = None
    live: int = 0
    max_live: int | None = None
    circuit: Circuit = "closed"
    create_seconds: float | None = None


class Exclusion(msgspec.Struct, frozen=True, kw_only=True):
    """Why one candidate is passed over."""

    kind: ExclusionKind
    reason: str
    hint: str


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: positions of the usable candidates, in the order in which they are tried; the decisions on them, and
    those on the others; and the error to raise when there is none to try."""

    order: tuple[int, ...]
    usable: tuple[Decision, ...]
    skipped: tuple[Decision, ...]
    error: SandboxerError | None


def select(
    candidates: Sequence[CandidateFacts], *, strategy: Strategy, require: Requirements, ttl: int | None, subject: str
) -> Selection:
    """Choose. `candidates` come in the order of the profile, and of the hosts for each, which breaks every tie; `ttl`
    is in seconds, None never ends; `subject` is what errors call the asked-for (the profile)."""
    refusals: dict[int, Exclusion] = {}
    open_to_use: list[int] = []
    demands = parse_requirements(require)
    for position, facts in enumerate(candidates):
        refusal = _refusal(facts, demands, ttl)
        if refusal is None:
            open_to_use.append(position)
        else:
            refusals[position] = refusal
    rank = _RANKS[strategy]
    order = tuple(open_to_use if rank is None else sorted(open_to_use, key=lambda n: rank(candidates[n])))
    return Selection(
        order=order,
        usable=tuple(
            _decision(candidates[position], "standby" if turn else "chosen", _reason(candidates, order, turn, strategy))
            for turn, position in enumerate(order)
        ),
        skipped=tuple(
            _decision(candidates[position], "skipped", refusal.reason) for position, refusal in refusals.items()
        ),
        error=None if order else _error(subject, candidates, refusals),
    )


def _refusal(facts: CandidateFacts, demands: ParsedRequirements | None, ttl: int | None) -> Exclusion | None:
    """The first thing that stands in the way of a candidate: what can never be, before what may be another day."""
    if facts.misplaced is not None:
        return _refused("host", facts.misplaced)
    if facts.absent is not None:
        return _refused("installation", facts.absent)
    if not facts.enabled:
        return _refused("off", "it is switched off in config.yaml")
    if demands is not None and (lacks := _lacks(facts, demands)) is not None:
        return _refused("requirement", lacks)
    if facts.unfit is not None:
        return _refused("requirement", facts.unfit)
    if facts.max_ttl is not None and (over := over_max_ttl(facts.max_ttl, ttl)) is not None:
        return _refused("ttl", over)
    if facts.unpriced is not None:
        return _refused("price", facts.unpriced)
    if facts.missing is not None:
        return _refused("credential", facts.missing, hint=facts.missing_hint)
    if facts.uncovered is not None:
        return _refused("budget", f"over budget: {facts.uncovered}")
    if facts.max_live is not None and facts.live >= facts.max_live:
        return _refused("cap", cap_reached(facts.max_live))
    if facts.circuit == "open":
        return _refused("health", "it failed again and again just now")
    return None


def _refused(kind: ExclusionKind, reason: str, *, hint: str = "") -> Exclusion:
    return Exclusion(kind=kind, reason=reason, hint=hint or _HINTS[kind])


def _lacks(facts: CandidateFacts, demands: ParsedRequirements) -> str | None:
    return unmet(
        demands,
        capabilities=facts.capabilities,
        isolation=facts.isolation,
        usd_per_hour=facts.usd_per_hour,
        estimated_usd=facts.estimated_usd,
    )


def over_max_ttl(max_ttl: int | None, ttl: int | None) -> str | None:
    """Why a lifetime (seconds, None never ends) is over what a provider grants; None when it is not."""
    if max_ttl is None or (ttl is not None and ttl <= max_ttl):
        return None
    asked = "no end is agreed" if ttl is None else f"{format_duration(ttl)} are asked for"
    return f"its sandboxes live {format_duration(max_ttl)} at most, and {asked}"


def cap_reached(cap: int) -> str:
    """What is said of an extension that may have no more sandboxes."""
    return f"at its cap of {cap} live sandboxes"


def _cheapest(facts: CandidateFacts) -> tuple[bool, Decimal]:
    return facts.estimated_usd is None, facts.estimated_usd or _ZERO


def _fastest(facts: CandidateFacts) -> tuple[bool, float]:
    return facts.create_seconds is None, facts.create_seconds or 0.0


_RANKS: Final[dict[Strategy, Callable[[CandidateFacts], Any] | None]] = {
    "explicit": None,
    "prefer-self-hosted": lambda facts: not facts.self_hosted,
    "lowest-cost": _cheapest,
    "lowest-latency": _fastest,
}
"""What is sorted by. Sorting is stable, so the order of the profile breaks ties."""


def _reason(candidates: Sequence[CandidateFacts], order: Sequence[int], turn: int, strategy: Strategy) -> str:
    facts = candidates[order[turn]]
    if turn:
        measured = f" ({_measured(facts)})" if strategy == "lowest-latency" else ""
        return f"not needed so far{measured}"
    if len(order) == 1:
        why = facts.placed or "only candidate"
        return why if len(candidates) == 1 else f"only usable candidate{_on(facts)}"
    if all(candidates[position].extension == facts.extension for position in order):
        return facts.placed or "first in the order of the profile"
    return _FIRST[strategy](facts)


def _on(facts: CandidateFacts) -> str:
    return f" ({facts.placed})" if facts.placed and facts.placed != "only candidate" else ""


def _usd(facts: CandidateFacts) -> str:
    return "its price is not known" if facts.estimated_usd is None else f"{usd_text(facts.estimated_usd)} USD"


def _measured(facts: CandidateFacts) -> str:
    seconds = facts.create_seconds
    if seconds is None:
        return "never measured"
    return f"{seconds:.1f} s measured" if seconds >= 1 else f"{max(seconds, 0.001):.2g} s measured"


def _preferred(facts: CandidateFacts) -> str:
    return "self-hosted comes first" if facts.self_hosted else "no self-hosted candidate can be used; first of the rest"


_FIRST: Final[dict[Strategy, Callable[[CandidateFacts], str]]] = {
    "explicit": lambda _: "first in the order of the profile",
    "prefer-self-hosted": _preferred,
    "lowest-cost": lambda facts: f"cheapest: {_usd(facts)}",
    "lowest-latency": lambda facts: (
        "none is measured yet; first in the order of the profile"
        if facts.create_seconds is None
        else f"fastest: {_measured(facts)}"
    ),
}


def _decision(facts: CandidateFacts, outcome: Literal["chosen", "standby", "skipped"], reason: str) -> Decision:
    usd = facts.estimated_usd
    estimate = None if usd is None else usd_text(usd)
    return Decision(extension=facts.extension, outcome=outcome, reason=reason, estimate_usd=estimate, host=facts.host)


def usd_text(usd: Decimal) -> str:
    """`0.0504`: plain digits, no trailing zeros."""
    if not usd:
        return "0"
    text = format(usd, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _error(subject: str, candidates: Sequence[CandidateFacts], refusals: dict[int, Exclusion]) -> SandboxerError:
    """The most useful error when every candidate is passed over: of what can be mended, before what cannot; and of
    that, what may be over by itself, before what lacks only money, before what lacks a credential."""
    if not candidates:
        return Invalid(f"{subject} has no candidates", hint="name at least one extension in its route")
    telling = {n: r for n, r in refusals.items() if r.kind in _MENDABLE} or refusals
    kinds = {refusal.kind for refusal in telling.values()}
    worst = next((kind for kind in _MENDABLE if kind in kinds), None) if len(kinds) > 1 else next(iter(kinds))
    kind: ExclusionKind = worst or "health"
    hint = next((refusal.hint for refusal in telling.values() if refusal.kind == kind), "")
    if len(candidates) == 1:
        (refusal,) = telling.values()
        return _ERRORS[kind](f"{candidates[0].extension} cannot serve {subject}: {refusal.reason}", hint=hint)
    each = dict.fromkeys(f"{candidates[n].extension}: {refusal.reason}" for n, refusal in telling.items())
    return _ERRORS[kind](
        f"no candidate can serve {subject}: {'; '.join(each)}", hint=hint or "run `sandboxer route explain`"
    )


_MENDABLE: Final[tuple[ExclusionKind, ...]] = ("health", "cap", "budget", "credential")
"""What need not stay as it is, the most telling first."""
_ERRORS: Final[dict[ExclusionKind, type[SandboxerError]]] = {
    "host": Invalid,
    "off": NotConfigured,
    "installation": NotConfigured,
    "requirement": Unsupported,
    "ttl": Invalid,
    "price": NotConfigured,
    "credential": NotConfigured,
    "budget": InsufficientCredits,
    "cap": Unavailable,
    "health": Unavailable,
}
