"""Create, up to ready: intent before effect, and everything taken back when it does not come to that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from sandboxer import __version__
from sandboxer.errors import Conflict, Internal, SandboxerError, Unavailable, from_document
from sandboxer.extensions.base import Context, Spec
from sandboxer.locks import Lock, this_owner
from sandboxer.manager.core import Core, Progress, quiet
from sandboxer.manager.plan import Plan, checked_options
from sandboxer.manager.removal import take_back
from sandboxer.models import Cost, Decision, Handle, Ready, Route, Sandbox, SecretRef
from sandboxer.names import new_id, resource_name
from sandboxer.state import Signal, State
from sandboxer.store.base import Change, Others, holds_name
from sandboxer.timing import Deadline

CREATE_SECONDS = 900.0
"""How long an establishment may take unless `--timeout` says otherwise."""
WATCH_SECONDS = 0.5
"""How often a running establishment looks whether it is still wanted."""


class Begun:
    """An establishment whose intent is durable: the record, and the lock that makes this process its owner."""

    def __init__(self, record: Sandbox, lock: Lock) -> None:
        self.record = record
        self.lock = lock


def begin(core: Core, plan: Plan) -> Begun | Sandbox:
    """Record the intent; or, for an idempotency key that was used, the sandbox it gave. Raises Conflict.

    The lock is taken before the record appears, so nobody ever sees a record in `provisioning` without an owner
    unless its owner is dead."""
    sandbox_id = new_id()
    lock = core.locks.try_acquire(sandbox_id)
    if lock is None:
        raise Internal(f"the new id {sandbox_id} is locked already")
    earlier: list[Sandbox] = []

    def change(record: Sandbox | None, others: Others) -> Change:
        if record is not None:
            raise Internal(f"the new id {sandbox_id} is taken already")
        if plan.idempotency_key is not None and (known := others.by_idempotency_key(plan.idempotency_key)) is not None:
            if known.fingerprint != plan.fingerprint:
                raise Conflict(
                    f"the idempotency key was used for another request (sandbox {known.id})",
                    hint="use a new key for a new request",
                    sandbox_id=known.id,
                )
            earlier.append(known)
            return Change()
        holder = None if plan.request.name is None else others.by_name(plan.request.name)
        if holder is not None and holds_name(holder):
            raise Conflict(
                f"the name {plan.request.name!r} is taken by sandbox {holder.id}",
                hint=f"choose another name, or `sandboxer destroy {holder.id}`",
                sandbox_id=holder.id,
            )
        fresh = _first_record(core, plan, sandbox_id)
        return Change(record=fresh, events=[core.event(None, fresh, "sandbox.provisioning")])

    try:
        record = core.store.update(sandbox_id, change)
    except BaseException as error:
        # An interrupt may come after the record became durable.
        with lock:
            _give_up(core, sandbox_id, error, keep=False, progress=quiet)
        raise
    if earlier:
        lock.close()
        return earlier[0]
    if record is None:
        raise Internal("the store kept nothing of a new record")
    core.announce()
    return Begun(record, lock)


def _first_record(core: Core, plan: Plan, sandbox_id: str) -> Sandbox:
    created = core.clock()
    return Sandbox(
        id=sandbox_id,
        request=plan.request,
        profile=plan.profile.id,
        profile_version=plan.profile.version,
        extension=plan.extension,
        state=str(State.PROVISIONING),
        consumer=plan.consumer,
        host=plan.hosts[0],
        created_at=created,
        name=plan.request.name,
        labels=plan.request.labels,
        inputs=plan.shown_inputs,
        expires_at=None if plan.ttl is None else created + plan.ttl,
        max_expires_at=None if plan.max_ttl is None else created + plan.max_ttl,
        route=plan.route,
        cost=Cost(pricing_model=plan.profile.pricing_model),
        options=plan.options,
        failed_ttl=plan.failed_ttl,
        idempotency_key=plan.idempotency_key,
        fingerprint=plan.fingerprint,
        secret_refs=_credentials(core, plan),
        owner=this_owner(),
        seq=1,
    )


def _credentials(core: Core, plan: Plan) -> dict[str, SecretRef]:
    """The profile's own references for credentials of the extension: later verbs need them too."""
    needed = core.extensions.manifest(plan.extension).secrets
    return {name: ref for name, ref in plan.profile.secrets.items() if name in needed}


def carry_out(core: Core, plan: Plan, begun: Begun, deadline: Deadline, progress: Progress = quiet) -> Sandbox:
    """From intent to ready, by the owner. What goes wrong is taken back, recorded as `failed`, and raised.

    Releases the lock in every case."""
    sandbox_id = begun.record.id
    with begun.lock:
        try:
            with _while_wanted(core, sandbox_id, deadline):
                return _establish(core, plan, sandbox_id, deadline, progress)
        except BaseException as error:
            _give_up(core, sandbox_id, error, keep=plan.request.keep_failed, progress=progress)
            if isinstance(error, SandboxerError) and error.sandbox_id is None:
                error.sandbox_id = sandbox_id
            raise


def _establish(core: Core, plan: Plan, sandbox_id: str, deadline: Deadline, progress: Progress) -> Sandbox:
    _wanted(core.current(sandbox_id))  # it may have waited for its turn, and be unwanted by now
    record = _choose_host(core, plan, sandbox_id, deadline, progress)
    extension = core.extensions.get(plan.extension)
    saved: list[Handle] = []

    def save(handle: Handle) -> None:
        if saved and saved[-1] == handle:
            return
        core.edit(sandbox_id, lambda now: msgspec.structs.replace(_wanted(now), handle=handle))
        saved.append(handle)

    context = core.extension_context(
        plan.extension, record.host, deadline, progress=progress, save=save, refs=plan.profile.secrets
    )
    spec = Spec(
        sandbox_id=sandbox_id,
        resource=resource_name(sandbox_id),
        profile=plan.profile.id,
        labels=core.labels(record),
        inputs=plan.inputs,
        options=checked_options(plan.extension, extension.Options, plan.options),
        expires_at=record.expires_at,
    )
    handle = extension.provision(spec, context)
    save(handle)
    ready = extension.wait_ready(handle, context)
    report = _self_check(core, plan, handle, ready, context)

    def established(now: Sandbox) -> Sandbox:
        return msgspec.structs.replace(
            now,
            handle=handle,
            reachability=ready.reachability,
            isolation=ready.isolation,
            report=report,
            ready_at=core.clock(),
            owner=None,
        )

    progress("ready", "")
    return core.move(sandbox_id, Signal.ESTABLISHED, edit=established)


def _wanted(record: Sandbox) -> Sandbox:
    if record.state != State.PROVISIONING:
        raise Conflict(
            f"sandbox {record.id} was {record.state} while it was being established", hint="create another one"
        )
    return record


def _choose_host(core: Core, plan: Plan, sandbox_id: str, deadline: Deadline, progress: Progress) -> Sandbox:
    """The first host that answers; the others' silence is recorded in the route. Raises the last one's error."""
    silent: list[Decision] = []
    for position, name in enumerate(plan.hosts):
        progress("resolve", f"{plan.profile.id} on {name}")
        last = position == len(plan.hosts) - 1
        try:
            # A host that swallows packets must leave time for the next one.
            core.open_host(name).connect(deadline if last else deadline.shorter(20))
        except Unavailable as error:
            silent.append(Decision(extension=plan.extension, outcome="failed", reason=error.message, host=name))
            if not last:
                continue
            _record_route(core, plan, sandbox_id, name, silent, chosen=False)
            if len(plan.hosts) == 1:
                raise
            raise Unavailable(
                f"none of the hosts {', '.join(plan.hosts)} answers: {error.message}",
                hint="run `sandboxer doctor`, or choose a host with --host",
            ) from error
        if not silent:
            return core.current(sandbox_id)
        return _record_route(core, plan, sandbox_id, name, silent, chosen=True)
    raise Internal("no host to place the sandbox on")


def _record_route(
    core: Core, plan: Plan, sandbox_id: str, host: str, silent: list[Decision], *, chosen: bool
) -> Sandbox:
    skipped = [decision for decision in plan.route.decisions if decision.outcome == "skipped"]
    reason = "the hosts before it did not answer"
    final = [Decision(extension=plan.extension, outcome="chosen", reason=reason, host=host)] if chosen else []
    route = Route(strategy=plan.route.strategy, decisions=[*skipped, *silent, *final])
    return core.edit(sandbox_id, lambda now: msgspec.structs.replace(_wanted(now), host=host, route=route))


def _self_check(core: Core, plan: Plan, handle: Handle, ready: Ready, context: Context) -> dict[str, Any] | None:
    if not plan.profile.self_check:
        return None
    from sandboxer import selfcheck  # only the canary pays for it

    context.progress("wait", "self-check inside the sandbox")
    return selfcheck.run(core.extensions.get(plan.extension), handle, ready, context, version=__version__)


@contextmanager
def _while_wanted(core: Core, sandbox_id: str, deadline: Deadline) -> Iterator[None]:
    """Cancel the deadline as soon as somebody else wants the sandbox gone, so that a long start ends early."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(WATCH_SECONDS):
            try:
                record = core.store.get(sandbox_id)
            except SandboxerError:
                continue  # the owner's own next write tells it better
            if record is None or record.state != State.PROVISIONING:
                if not done.is_set():
                    deadline.cancel()
                return

    watcher = threading.Thread(target=watch, name=f"watch-{sandbox_id}", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()


def _give_up(core: Core, sandbox_id: str, error: BaseException, *, keep: bool, progress: Progress) -> None:
    """Take back what was made and record why. What cannot be taken back now stays recorded for `reconcile`."""
    record = core.store.get(sandbox_id)
    if record is None or record.state != State.PROVISIONING:
        return  # somebody destroys it: they wait for our lock, and do the rest
    document = error_document(error, sandbox_id)
    clean = False
    if not keep:
        progress("rollback", "taking back what was begun")
        rest = take_back(core, record, quick=not isinstance(error, Exception))
        clean = rest is None
        if rest is not None:
            document["details"] = {**(document.get("details") or {}), "rollback": rest.message}
            document["outcome"] = "unknown"

    def failed(now: Sandbox) -> Sandbox:
        return msgspec.structs.replace(
            now, error=document, clean=clean, owner=None, expires_at=core.clock() + now.failed_ttl
        )

    try:
        core.move(sandbox_id, Signal.FAIL, edit=failed, must_succeed=True)
    except Conflict:
        return  # destroyed meanwhile: the record already says more than `failed`


def error_document(error: BaseException, sandbox_id: str) -> dict[str, Any]:
    """What a record keeps of an error."""
    if isinstance(error, SandboxerError):
        return {**error.document(), "sandbox_id": sandbox_id}
    if isinstance(error, Exception):
        return Internal(f"{type(error).__name__}: {error}", sandbox_id=sandbox_id, hint="please report it").document()
    return {
        "code": "interrupted",
        "message": "interrupted before it was ready",
        "hint": "create it again",
        "retryable": True,
        "outcome": "failed",
        "sandbox_id": sandbox_id,
    }


def outcome_of(core: Core, sandbox_id: str, deadline: Deadline, sleep: Callable[[float], None]) -> Sandbox:
    """Wait until an establishment that another process owns has ended; its record, or its error raised."""
    pause = 0.02
    while True:
        record = core.current(sandbox_id)
        if record.state != State.PROVISIONING:
            break
        deadline.check(f"waiting for sandbox {sandbox_id} to be ready")
        sleep(deadline.seconds(pause))
        pause = min(pause * 1.5, 1.0)
    if record.state == State.FAILED and record.error is not None:
        raise from_document(record.error)
    return record
