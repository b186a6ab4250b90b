"""Whose turn it is: the next candidate that may be tried, with its money set aside and its place recorded in one write.

Money first, then the record, then the backend: a crash between two of them leaves less than a person would miss, and
`reconcile` settles it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sandboxer.errors import InsufficientCredits, OverQuota, SandboxerError, Unavailable, from_document
from sandboxer.manager import money
from sandboxer.manager.candidates import Candidate, live_count
from sandboxer.manager.plan import CreatePlan
from sandboxer.manager.services import Services
from sandboxer.models import Cost, Route, Sandbox, SecretRef
from sandboxer.payments.prices import Quote
from sandboxer.routing import decisions as route_decisions
from sandboxer.routing.selection import cap_reached
from sandboxer.store.base import OtherRecords, UpdateFn


class CapReached(Unavailable):
    """The extension got its last sandbox from somebody else since the decision."""


class PlacedCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate that is about to be tried: its position, the route that says so, and what it costs."""

    number: int
    candidate: Candidate
    route: Route
    quote: Quote | None

    def placed(self, services: Services, plan: CreatePlan, record: Sandbox) -> Sandbox:
        """The record on this candidate, with nothing made of it yet."""
        candidate, longest = self.candidate, [n for n in (plan.max_ttl, self.candidate.max_ttl) if n is not None]
        quote = self.quote
        return msgspec.structs.replace(
            record,
            extension=candidate.extension,
            host=candidate.host,
            options=candidate.options,
            route=self.route,
            max_expires_at=record.created_at + min(longest) if longest else None,
            cost=Cost() if quote is None else money.cost_of(quote),
            metering=None if quote is None else money.metering_of(quote, now=record.created_at),
            secret_refs=credentials(services, plan, candidate.extension),
            handle=None,
            clean=False,
        )

    def check_room(self, others: OtherRecords, *, without: str | None) -> None:
        """Count again, under the store's lock. Raises AtCap."""
        cap = self.candidate.max_live
        if cap is not None and live_count(list(others), self.candidate.extension, without=without) >= cap:
            raise CapReached(cap_reached(cap), hint="destroy one of its sandboxes first: run `sandboxer list`")


class Exhausted(msgspec.Struct, frozen=True, kw_only=True):
    """No candidate is left; `error` is why the last one was passed over, None when there was none."""

    route: Route
    error: SandboxerError | None


def place_next(
    services: Services,
    plan: CreatePlan,
    sandbox_id: str,
    *,
    route: Route,
    start: int,
    write: Callable[[PlacedCandidate], UpdateFn],
) -> Sandbox | Exhausted | None:
    """Let the first candidate from position `start` on have its turn: its circuit admits it, its money is reserved (in
    place of what was reserved before it), and `write` makes it durable. What the store's update answers; Spent when
    none can have a turn."""
    passed_over: SandboxerError | None = None
    for number in range(start, len(plan.candidates)):
        candidate = plan.candidates[number]
        place = (candidate.extension, candidate.host)
        # A profile that names one extension wants that one, well or not.
        busy = services.health.admit(*place) if plan.profile.route is not None else None
        if busy is not None:
            passed_over = Unavailable(busy, hint="try again in a minute")
            route = route_decisions.mark_ended(route, number, outcome="skipped", reason=busy)
            continue
        if number:
            route = route_decisions.mark_chosen(route, number, route_decisions.reason_for_next(route, number))
        try:
            quote = _reserve(services, plan, sandbox_id, candidate)
            turn = PlacedCandidate(number=number, candidate=candidate, route=route, quote=quote)
            return services.store.update(sandbox_id, write(turn))
        except OverQuota:
            services.health.undecided(*place)
            raise  # it is the consumer's, whoever would serve it
        except (InsufficientCredits, CapReached) as error:
            services.health.undecided(*place)
            passed_over = error
            reason = error.message if isinstance(error, CapReached) else f"over budget: {error.message}"
            route = route_decisions.mark_ended(route, number, outcome="skipped", reason=reason)
    return Exhausted(route=route, error=passed_over)


def _reserve(services: Services, plan: CreatePlan, sandbox_id: str, candidate: Candidate) -> Quote | None:
    """Set aside what a candidate costs; the quote, None for a free one. Raises InsufficientCredits."""
    if not any(each.metered for each in plan.candidates):
        return None  # a free sandbox never touches the book
    manifest = services.extensions.manifest(candidate.extension)
    quote = money.quote_for(services, manifest, host=candidate.host, options=candidate.options, ttl=plan.ttl)
    money.reserve(services, sandbox_id, quote, plan.consumer, grant=plan.grant)
    return quote


def credentials(services: Services, plan: CreatePlan, extension_id: str) -> dict[str, SecretRef]:
    """The profile's own references for credentials of an extension: later verbs need them too."""
    needed = services.extensions.manifest(extension_id).secrets
    return {name: ref for name, ref in plan.profile.secrets.items() if name in needed}


def with_decisions(error: SandboxerError, route: Route) -> SandboxerError:
    """The error, telling also what was decided about every candidate."""
    decisions: list[dict[str, Any]] = msgspec.to_builtins(route.decisions)
    error.details = {**(error.details or {}), "decisions": decisions}
    return error


def nobody(plan: CreatePlan, spent: Exhausted) -> SandboxerError:
    """The error of a create that nobody could even begin."""
    if plan.refusal is not None:
        return from_document(plan.refusal)
    error = spent.error or Unavailable(
        f"no candidate can serve {plan.profile.id}", hint="run `sandboxer route explain`"
    )
    return with_decisions(error, spent.route)
