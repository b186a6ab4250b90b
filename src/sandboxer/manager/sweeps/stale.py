"""Find stale resources, those of ours without a live record, and reap them; or write lost records again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from sandboxer.errors import Internal, NotConfigured, SandboxerError
from sandboxer.extensions.base import Context, Found, SandboxExtension
from sandboxer.manager.services import Services
from sandboxer.manager.sweeps.report import Action, Remaining, caught, run_in_lanes
from sandboxer.models import Consumer, Decision, Handle, Request, Route, Sandbox
from sandboxer.names import LABEL_EXTENSION, LABEL_PROFILE, resource_name
from sandboxer.routing import LOCAL
from sandboxer.state import LIVE, State
from sandboxer.store.base import Change, OtherRecords
from sandboxer.timing import Deadline


def find_stale(
    services: Services, records: Iterable[Sandbox], grace: float
) -> tuple[list[Action], list[Remaining], int]:
    """Labelled resources of ours that no live record knows; what could not be listed; how many were seen."""
    seen, remaining = list_everywhere(services, records)
    # Read again after looking: what was created meanwhile has a record by now.
    live = {record.id: record for record in services.store.list() if record.state in LIVE}
    actions = [
        Action(
            sandbox_id=found.sandbox_id,
            action="remove",
            why="no live record knows " + (found.detail or resource_name(found.sandbox_id)),
            host=host,
            extension=extension,
        )
        for extension, host, found in seen
        if not is_recorded(found, live.get(found.sandbox_id), (extension, host))
        and old_enough(found, services.clock(), grace)
    ]
    return actions, remaining, len(seen)


def list_everywhere(
    services: Services, records: Iterable[Sandbox], *, strict: bool = False, install: str | None = None
) -> tuple[list[tuple[str, str | None, Found]], list[Remaining]]:
    """Everything of this installation (or of `install`): on every host that is configured or that a record names, for
    every backend of our own hosts, and at every provider: (extension, host, resource); and the places that could not be
    listed. `strict` counts among those also backends that no record names and that are not there, switched off or
    without a key."""
    places = {(record.extension, record.host) for record in records}
    hosts = {LOCAL, *services.settings.hosts, *(host for _, host in places if host is not None)}
    everywhere: set[tuple[str, str | None]] = set(places)
    for manifest in services.extensions.manifests():
        everywhere |= {(manifest.id, host) for host in hosts} if manifest.self_hosted else {(manifest.id, None)}
    wanted = sorted(everywhere, key=lambda place: (place[0], place[1] or ""))
    looks = run_in_lanes(
        wanted,
        lambda place: _inventory(services, *place, strict=strict or place in places, install=install),
        lane=lambda place: place[1] or place[0],
    )
    seen: list[tuple[str, str | None, Found]] = []
    unseen: list[Remaining] = []
    for (extension, host), look in zip(wanted, looks, strict=True):
        if isinstance(look, Remaining):
            unseen.append(look)
        else:
            seen += [(extension, host, found) for found in look]
    return seen, unseen


def is_recorded(found: Found, record: Sandbox | None, place: tuple[str, str | None]) -> bool:
    """Whether a resource at a place (extension, host) is one that its live record (None: there is none) knows.

    A route may have tried that extension before, and gone on when nothing was there: what appears there later is a
    stray, though the sandbox lives elsewhere. Its own label must say that it was made there: two extensions of one
    class, or two names of one host, may show what the record holds."""
    if record is None:
        return False
    extension, _ = place
    given_up = any(
        (decision.extension, decision.host) == place and decision.outcome == "failed"
        for decision in record.route.decisions
    )
    return not (given_up and record.extension != extension and found.labels.get(LABEL_EXTENSION) == extension)


def old_enough(found: Found, now: float, grace: float) -> bool:
    """Whether a stray resource may go. One whose age is not known may not."""
    return found.created_at is not None and now - found.created_at > grace


def _inventory(
    services: Services, extension: str, host: str | None, *, strict: bool, install: str | None = None
) -> Sequence[Found] | Remaining:
    deadline = Deadline(services.limits.inspect)

    def look() -> Sequence[Found]:
        context = services.extension_context(extension, host, deadline, install=install)
        context.host.connect(deadline)
        return list(services.extensions.get(extension).inventory(context))

    def unseen(error: SandboxerError) -> Sequence[Found] | Remaining:
        if not strict and isinstance(error, NotConfigured):
            return []  # this backend is not used on this host, and never was by a record we have
        if not strict and host == LOCAL and not isinstance(error, Internal):
            return []  # an engine of this machine that is switched off, and that no record names
        return Remaining(why=error.message, host=host, extension=extension, error=error.document())

    return caught(look, unseen)


def reap_stale(services: Services, action: Action) -> Action:
    assert action.sandbox_id is not None  # noqa: S101 - strays are found by their id
    lock = services.locks.try_acquire(action.sandbox_id)
    if lock is None:
        return msgspec.structs.replace(action, outcome="skipped", why="another command is working on it")
    with lock:
        record = services.store.get(action.sandbox_id)
        live = record if record is not None and record.state in LIVE else None
        deadline = Deadline(services.limits.sweep_one)
        try:
            context = services.extension_context(action.extension, action.host, deadline)
            extension = services.extensions.get(action.extension)
            handle = _stray_handle(extension, action, live, context)
            if handle is None and live is not None:
                return msgspec.structs.replace(action, outcome="skipped", why="it has a live record now")
            if handle is not None:
                extension.teardown(handle, context)
        except SandboxerError as error:
            return msgspec.structs.replace(action, outcome="failed", error=error.document())
    return msgspec.structs.replace(action, outcome="done")


def _stray_handle(extension: SandboxExtension, action: Action, live: Sandbox | None, context: Context) -> Handle | None:
    """What is still there of a stray, looked for once more under its lock."""
    if live is None:
        return extension.find(str(action.sandbox_id), context)
    place = (action.extension, action.host)
    still = [found for found in extension.inventory(context) if found.sandbox_id == action.sandbox_id]
    return next((found.handle for found in still if not is_recorded(found, live, place)), None)


# -- lost records -----------------------------------------------------------------------------------------------------

UNKNOWN_VERSION = "0.0.0"


class RebuiltRecords(msgspec.Struct, frozen=True, kw_only=True):
    """What a repair brought back, and where it could not look."""

    records: list[Sandbox]
    unseen: list[Remaining]


def rebuild_records(services: Services) -> RebuiltRecords:
    """A record for every labelled resource of this installation that has none. What was not on the labels (who asked,
    inputs, labels of the user) is lost; what is there can be used and destroyed again."""
    seen, unseen = list_everywhere(services, services.store.list())
    lost = [item for item in seen if services.store.get(item[2].sandbox_id) is None]
    records = run_in_lanes(lost, lambda item: _restore_one(services, *item), lane=lambda item: item[1] or item[0])
    return RebuiltRecords(records=records, unseen=unseen)


def _restore_one(services: Services, extension: str, host: str | None, found: Found) -> Sandbox:
    created = found.created_at if found.created_at is not None else services.clock()
    decision = Decision(extension=extension, outcome="chosen", reason="found by doctor --repair", host=host)
    profile = found.labels.get(LABEL_PROFILE, "profile.unknown")
    record = Sandbox(
        id=found.sandbox_id,
        request=Request(profile=profile, host=host),
        profile=profile,
        profile_version=UNKNOWN_VERSION,
        extension=extension,
        state=str(State.READY),
        consumer=Consumer(actor="atm", name="doctor"),
        host=host,
        created_at=created,
        ready_at=created,
        expires_at=found.expires_at,
        handle=found.handle,
        route=Route(strategy="explicit", decisions=[decision]),
        seq=1,
    )
    try:
        ready = services.extension(record).wait_ready(
            found.handle, services.context(record, Deadline(services.limits.inspect))
        )
    except SandboxerError as error:
        document = {**error.document(), "sandbox_id": record.id}
        record = msgspec.structs.replace(record, state=str(State.FAILED), error=document)
    else:
        record = msgspec.structs.replace(record, reachability=ready.reachability, isolation=ready.isolation)

    def write(now: Sandbox | None, _others: OtherRecords) -> Change:
        if now is not None:
            return Change()  # somebody was faster
        return Change(record=record, events=[services.event(None, record, f"sandbox.{record.state}")])

    return services.store.update(record.id, write) or record
