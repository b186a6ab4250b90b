"""Admit a create under the store's lock: its idempotency key, its name, its consumer's quota, its extension's cap."""

from __future__ import annotations

from sandboxer.errors import Conflict, Internal
from sandboxer.locks import this_owner
from sandboxer.manager import quotas
from sandboxer.manager.establish.fallback import PlacedCandidate
from sandboxer.manager.establish.plan import CreatePlan
from sandboxer.manager.naming import NameClaim, check_name_hides_nobody, check_name_is_free
from sandboxer.manager.services import Services
from sandboxer.models import Sandbox
from sandboxer.state import State
from sandboxer.store.base import Change, OtherRecords


class Admission:
    """The write that makes the intent of a create durable.

    `earlier` is the sandbox that the idempotency key gave before, once it was found: then nothing is written."""

    def __init__(self, services: Services, plan: CreatePlan, sandbox_id: str) -> None:
        self.sandbox_id = sandbox_id
        self.quota = quotas.quota_of(services.settings.quotas, plan.consumer)
        self.earlier: Sandbox | None = None
        self._services = services
        self._plan = plan

    def look(self, record: Sandbox | None, others: OtherRecords) -> Change:
        """Find what the key gave before; writes nothing."""
        if record is not None:
            raise Internal(f"the new id {self.sandbox_id} is taken already")
        self.earlier = _of_the_key(self._plan, others)
        return Change()

    def write(self, placed: PlacedCandidate, record: Sandbox | None, others: OtherRecords) -> Change:
        """The new record on its first candidate."""
        services, plan = self._services, self._plan
        self.look(record, others)
        if self.earlier is not None:
            return Change()
        _check_name(plan, others)
        quotas.check_live(self.quota, plan.consumer, others, without=plan.replaces)
        placed.check_cap(others, without=plan.replaces)
        fresh = placed.record(services, plan, self._new_record(placed))
        return Change(record=fresh, events=[services.event(None, fresh, "sandbox.provisioning")])

    def _new_record(self, placed: PlacedCandidate) -> Sandbox:
        plan, created = self._plan, self._services.clock()
        return Sandbox(
            id=self.sandbox_id,
            request=plan.request,
            profile=plan.profile.id,
            profile_version=plan.profile.version,
            extension=placed.candidate.extension,
            state=str(State.PROVISIONING),
            consumer=plan.consumer,
            host=placed.candidate.host,
            created_at=created,
            name=plan.request.name,
            labels=plan.request.labels,
            inputs=plan.shown_inputs,
            expires_at=None if plan.ttl is None else created + plan.ttl,
            failed_ttl=plan.failed_ttl,
            idle_ttl=plan.idle_ttl,
            idle_action=plan.profile.ttl.idle_action,
            idempotency_key=plan.idempotency_key,
            fingerprint=plan.fingerprint,
            snapshot_of=plan.request.snapshot,
            owner=this_owner(),
            ends_with=this_owner() if plan.one_shot else None,
            seq=1,
        )


def check_name_and_key(services: Services, plan: CreatePlan) -> None:
    """Raise what `begin` would raise of a name or an idempotency key that is taken; nothing is touched."""
    if plan.request.name is None and plan.idempotency_key is None:
        return
    others = services.store.others()
    if _of_the_key(plan, others) is None:
        _check_name(plan, others)


def _of_the_key(plan: CreatePlan, others: OtherRecords) -> Sandbox | None:
    """The sandbox that the idempotency key gave before. Raises Conflict when that was for another request."""
    if plan.idempotency_key is None:
        return None
    known = others.by_idempotency_key(plan.idempotency_key, consumer=plan.consumer)
    if known is not None and known.fingerprint != plan.fingerprint:
        raise Conflict(
            f"the idempotency key was used for another request (sandbox {known.id})",
            hint="use a new key for a new request",
            sandbox_id=known.id,
        )
    return known


def _check_name(plan: CreatePlan, others: OtherRecords) -> None:
    asks = NameClaim(plan.consumer, plan.grant, without=plan.replaces)
    check_name_is_free(plan.request.name, others, asks)
    check_name_hides_nobody(plan.request.name, others, asks)
