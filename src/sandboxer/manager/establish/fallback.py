"""Place a create on the next candidate that may be tried: its money is reserved, then one write says so.

Money first, then the record, then the backend: a crash between two of them leaves less than a person would miss, and
`reconcile` settles it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from sandboxer.errors import InsufficientCredits, SandboxerError, Unavailable, from_document
from sandboxer.manager import billing
from sandboxer.manager.establish.candidates import Candidate, live_count
from sandboxer.manager.establish.plan import CreatePlan
from sandboxer.manager.services import Services
from sandboxer.models import Cost, Route, Sandbox, SecretRef
from sandboxer.payments.prices import Quote
from sandboxer.routing import decisions
from sandboxer.routing.selection import cap_reached
from sandboxer.store.base import Change, OtherRecords


class CapReached(Unavailable):
    """The extension got its last sandbox from somebody else since the decision."""


class PlacedCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate that is about to be tried: the route that says so, and what it costs."""

    candidate: Candidate
    route: Route
    quote: Quote | None

    def record(self, services: Services, plan: CreatePlan, record: Sandbox) -> Sandbox:
        """The record on this candidate, with nothing made of it yet."""
        candidate, quote = self.candidate, self.quote
        longest = [n for n in (plan.max_ttl, candidate.max_ttl) if n is not None]
        return msgspec.structs.replace(
            record,
            extension=candidate.extension,
            host=candidate.host,
            options=candidate.options,
            route=self.route,
            max_expires_at=record.created_at + min(longest) if longest else None,
            cost=Cost() if quote is None else billing.cost_of(quote),
            metering=None if quote is None else billing.metering_of(quote, now=record.created_at),
            secret_refs=_credentials(services, plan, candidate.extension),
            handle=None,
            clean=False,
        )

    def check_cap(self, others: OtherRecords, *, without: str | None) -> None:
        """Count again, under the store's lock. Raises CapReached."""
        cap = self.candidate.max_live
        if cap is not None and live_count(list(others), self.candidate.extension, without=without) >= cap:
            raise CapReached(cap_reached(cap), hint="destroy one of its sandboxes first: run `sandboxer list`")


Write = Callable[[PlacedCandidate, Sandbox | None, OtherRecords], Change]
"""The write that makes a placement durable: a pure function for `Store.update`."""


class Exhausted(msgspec.Struct, frozen=True, kw_only=True):
    """No candidate is left; `error` is why the last one was passed over, None when there was none."""

    route: Route
    error: SandboxerError | None


def place_next(
    services: Services, plan: CreatePlan, sandbox_id: str, *, route: Route, start: int, write: Write
) -> Sandbox | Exhausted | None:
    """Place the create on the first candidate from position `start` on that admits it: its circuit is closed, its money
    is reserved (in place of what was reserved before), and `write` is committed. The record; None when `write` found
    that none is needed; Exhausted when no candidate is left."""
    passed_over: SandboxerError | None = None
    for position in range(start, len(plan.candidates)):
        candidate = plan.candidates[position]
        place = (candidate.extension, candidate.host)
        # A profile that names one extension wants that one, well or not.
        busy = services.health.admit(*place) if plan.profile.route is not None else None
        if busy is not None:
            passed_over = Unavailable(busy, hint="try again in a minute")
            route = decisions.mark_ended(route, position, outcome="skipped", reason=busy)
            continue
        if position:
            route = decisions.mark_chosen(route, position, decisions.reason_for_next(route, position))
        try:
            quote = _reserve(services, plan, sandbox_id, candidate)
            placed = PlacedCandidate(candidate=candidate, route=route, quote=quote)
            stored = services.store.update(sandbox_id, partial(write, placed))
        except (InsufficientCredits, CapReached) as error:
            services.health.undecided(*place)
            passed_over = error
            reason = error.message if isinstance(error, CapReached) else f"over budget: {error.message}"
            route = decisions.mark_ended(route, position, outcome="skipped", reason=reason)
            continue
        except SandboxerError:
            services.health.undecided(*place)
            raise  # it is the request's, whoever would serve it
        if stored is None:
            services.health.undecided(*place)
        return stored
    return Exhausted(route=route, error=passed_over)


def _reserve(services: Services, plan: CreatePlan, sandbox_id: str, candidate: Candidate) -> Quote | None:
    """Set aside what a candidate costs; the quote, None for a free one. Raises InsufficientCredits."""
    if not any(each.metered for each in plan.candidates):
        return None  # a free sandbox never touches the book
    manifest = services.extensions.manifest(candidate.extension)
    quote = billing.quote_for(services, manifest, host=candidate.host, options=candidate.options, ttl=plan.ttl)
    billing.reserve(services, sandbox_id, quote, plan.consumer, grant=plan.grant, replaces=plan.replaces)
    return quote


def _credentials(services: Services, plan: CreatePlan, extension_id: str) -> dict[str, SecretRef]:
    """The profile's own references for credentials of an extension: later verbs need them too."""
    needed = services.extensions.manifest(extension_id).secrets
    return {name: ref for name, ref in plan.profile.secrets.items() if name in needed}


def with_decisions(error: SandboxerError, route: Route) -> SandboxerError:
    """The error, telling also what was decided about every candidate."""
    told: list[dict[str, Any]] = msgspec.to_builtins(route.decisions)
    error.details = {**(error.details or {}), "decisions": told}
    return error


def nobody_can_serve(plan: CreatePlan, exhausted: Exhausted) -> SandboxerError:
    """The error of a create that could not even begin."""
    if plan.refusal is not None:
        return from_document(plan.refusal)
    error = exhausted.error or Unavailable(
        f"no candidate can serve {plan.profile.id}", hint="run `sandboxer route explain`"
    )
    return with_decisions(error, exhausted.route)
