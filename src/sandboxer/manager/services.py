"""Hold the parts that every verb stands on, and make the few moves that all of them make."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sandboxer import events, secrets
from sandboxer.config.catalog import Catalog
from sandboxer.errors import Conflict, NotFound
from sandboxer.extensions.base import Context, SandboxExtension
from sandboxer.hosts.base import Host
from sandboxer.locks import Leases, SandboxLocks, Slots
from sandboxer.manager.cancellation import Cancellations
from sandboxer.manager.establish.backend_health import HealthStore
from sandboxer.manager.limits import DEFAULT, Limits
from sandboxer.manager.sweeps.log import SweepLog
from sandboxer.masking import masked
from sandboxer.models import Event, Handle, Manifest, Profile, Sandbox, SecretRef, Settings
from sandboxer.names import ID, LABEL_EXPIRES, LABEL_EXTENSION, LABEL_ID, LABEL_INSTALL, LABEL_PROFILE, MIN_PREFIX, NAME
from sandboxer.payments.credits import Credits
from sandboxer.registry import Registry
from sandboxer.routing import LOCAL
from sandboxer.state import LIVE, State, Trigger, advance
from sandboxer.store.audit_log import AuditLog
from sandboxer.store.base import Change, OtherRecords, Store
from sandboxer.store.create_rates import CreateRates
from sandboxer.store.snapshot_records import SnapshotRecords
from sandboxer.store.tokens import TokenStore
from sandboxer.timing import Deadline, now, uptime

ENDING_SIGNALS = frozenset({Trigger.DESTROY, Trigger.EXPIRE, Trigger.FAIL})
"""What ends a sandbox's life, whatever is still left of it."""

_EVENTS = {Trigger.STARTED: "sandbox.started"}
"""Events that are called by what happened; the others by the state that follows."""

Progress = Callable[[str, str], None]
Edit = Callable[[Sandbox], Sandbox]


def no_progress(_phase: str, _text: str) -> None:
    """Progress that nobody watches."""


def unchanged(record: Sandbox) -> Sandbox:
    """The edit that changes nothing but the state."""
    return record


def nothing_else(record: Sandbox) -> tuple[Sandbox, Sequence[Event]]:
    """Nothing follows a change."""
    return record, ()


def no_events(_before: Sandbox, _after: Sandbox) -> Sequence[Event]:
    """No further events of a change."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts, wired by bootstrap. `announce` starts the relay of events; it returns at once."""

    store: Store
    locks: SandboxLocks
    leases: Leases
    settings: Settings
    profiles: Catalog[Profile]
    extensions: Registry
    open_host: Callable[[str], Host]
    environment: Mapping[str, str]
    announce: Callable[[], None]
    credits: Credits
    health: HealthStore
    tokens: TokenStore
    audit: AuditLog
    recent: CreateRates
    slots: Slots
    sweeps: SweepLog
    snapshots: SnapshotRecords
    snapshot_files: Path
    clock: Callable[[], float] = field(default=now)
    uptime: Callable[[], float] = field(default=uptime)
    limits: Limits = field(default=DEFAULT)
    cancellations: Cancellations = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "cancellations", Cancellations(self.store, poll=self.limits.cancellation_poll)
        )  # frozen, and made of another part

    def resolve(self, text: str) -> Sandbox:
        """The one record that an id, a unique prefix or a name means; of names that nobody has now, the last one that
        had it. A text that is the name of one and the beginning of another's id means neither. Raises NotFound or
        Conflict."""
        found = self.store.find(text) or self._last_named(text)
        if not found:
            hint = "run `sandboxer list --all`"
            if len(text) < MIN_PREFIX:
                hint = f"give the name, or at least {MIN_PREFIX} characters of the id; `sandboxer list` shows both"
            raise NotFound(f"no sandbox {text[:80]!r}", hint=hint)
        live = [record for record in found if record.state in LIVE]
        if len(found) > 1 and len(live) == 1:
            return live[0]
        if len(found) > 1:
            meant = [record.id if record.name != text else f"{record.id} (its name)" for record in live or found]
            more = ", ..." if len(meant) > 5 else ""
            raise Conflict(
                f"{text!r} means more than one sandbox: {', '.join(meant[:5])}{more}",
                hint="give more characters of the id",
            )
        return found[0]

    def _last_named(self, name: str) -> Sequence[Sandbox]:
        """The newest of the ended that had this name: whoever destroys by name may do so again."""
        if not NAME.fullmatch(name) or ID.fullmatch(name):
            return []
        return self.store.list(ended=True, name=name)[-1:]

    def current(self, sandbox_id: str) -> Sandbox:
        """The record as it is now; raises NotFound."""
        record = self.store.get(sandbox_id)
        if record is None:
            raise NotFound(f"no sandbox {sandbox_id!r}", hint="run `sandboxer list --all`")
        return record

    def extension(self, record: Sandbox) -> SandboxExtension:
        """The adapter of a record."""
        return self.extensions.get(record.extension)

    def context(
        self,
        record: Sandbox,
        deadline: Deadline,
        *,
        progress: Progress = no_progress,
        save: Callable[[Handle], None] | None = None,
    ) -> Context:
        """What the adapter of `record` may use, with the credentials that it was created with."""
        return self.extension_context(
            record.extension, record.host, deadline, progress=progress, save=save, refs=record.secret_refs
        )

    def extension_context(
        self,
        extension: str,
        host: str | None,
        deadline: Deadline,
        *,
        progress: Progress = no_progress,
        save: Callable[[Handle], None] | None = None,
        refs: Mapping[str, SecretRef] | None = None,
        install: str | None = None,
    ) -> Context:
        """A context for one extension on one host (None: it has no hosts, its calls go out from here).

        `refs` are laid over the secret references of the extension; `install` is another installation than this one,
        whose sandboxes are to be seen. Raises NotConfigured for a secret that is not
        there, before anything of the extension is imported or called."""
        manifest = self.extensions.manifest(extension)
        found: dict[str, secrets.Secret] = {}
        for name, ref in {**manifest.secrets, **(refs or {})}.items():
            value = secrets.resolve(name, ref, self.environment, openbao=self.settings.openbao, deadline=deadline)
            if value is not None:
                found[name] = value
        return Context(
            host=self.open_host(LOCAL if host is None else host),
            install=self.store.install_id if install is None else install,
            deadline=deadline,
            progress=no_progress if progress is no_progress else lambda phase, text: progress(phase, masked(text)),
            save=save or (lambda _handle: None),
            secrets=found,
            endpoints=self.endpoints(manifest),
        )

    def endpoints(self, manifest: Manifest) -> dict[str, str]:
        """Where a provider is reached: the environment's word, else the manifest's (with config.yaml laid over it)."""
        found: dict[str, str] = {}
        for name, endpoint in manifest.endpoints.items():
            address = self.environment.get(endpoint.variable) if endpoint.variable else None
            if address or endpoint.default:
                found[name] = address or endpoint.default or ""
        return found

    def labels(self, record: Sandbox) -> dict[str, str]:
        """What is written on everything that is made for a record."""
        return {
            LABEL_ID: record.id,
            LABEL_INSTALL: self.store.install_id,
            LABEL_EXPIRES: str(int(record.expires_at)) if record.expires_at is not None else "never",
            LABEL_PROFILE: record.profile,
            LABEL_EXTENSION: record.extension,
        }

    def event(
        self, before: Sandbox | None, after: Sandbox, event_type: str, *, detail: Mapping[str, Any] | None = None
    ) -> Event:
        """The fact that tells of a change, waiting for the hub if there is one."""
        event = events.build_event(before, after, event_type, self.clock(), detail=detail)
        return msgspec.structs.replace(event, status=events.initial_status(self.settings.state_hub))

    def move(
        self,
        sandbox_id: str,
        signal: Trigger,
        *,
        edit: Edit = unchanged,
        more: Callable[[Sandbox, Sandbox], Sequence[Event]] = no_events,
        then: Callable[[Sandbox], tuple[Sandbox, Sequence[Event]]] = nothing_else,
        must_succeed: bool = False,
    ) -> Sandbox:
        """Let `signal` happen to a record: the new state, what `edit` changes, and its event, in one commit. `more` are
        further events of the change (from the record before and after), told ahead of its own; `edit` has counted them.
        `then` is what happens to it next, in the same commit.

        Raises NotFound, or Conflict when the state does not accept the signal. A signal that leaves the state as it is
        records no event. The first one that ends a sandbox sets `wished_at`."""

        def change(record: Sandbox | None, _others: OtherRecords) -> Change:
            if record is None:
                raise NotFound(f"no sandbox {sandbox_id!r}", hint="run `sandboxer list --all`")
            state = advance(State(record.state), signal)
            if state == record.state:
                after = edit(record)
                return Change(record=after if after != record else None)
            moved = msgspec.structs.replace(record, state=str(state), seq=record.seq + 1)
            if signal in ENDING_SIGNALS and record.wished_at is None:
                # Nothing is charged from here on, nor after the end that was agreed.
                moved = msgspec.structs.replace(moved, wished_at=min(self.clock(), record.expires_at or math.inf))
            after = edit(moved)
            told = self.event(record, after, _EVENTS.get(signal, f"sandbox.{state}"))
            last, further = then(after)
            return Change(record=last, events=[*more(record, after), told, *further])

        stored = self.store.update(sandbox_id, change, must_succeed=must_succeed)
        self.announce()
        return stored or self.current(sandbox_id)

    def first_use(self, record: Sandbox) -> tuple[Sandbox, Sequence[Event]]:
        """A record from its first use on, and the event that tells of it."""
        after = msgspec.structs.replace(record, last_active_at=self.clock(), seq=record.seq + 1)
        return after, [self.event(record, after, "sandbox.active", detail={"to_state": "active"})]

    def edit(self, sandbox_id: str, edit: Edit) -> Sandbox:
        """Change a record without a change of state; `edit` may raise to refuse."""

        def change(record: Sandbox | None, _others: OtherRecords) -> Change:
            if record is None:
                raise NotFound(f"no sandbox {sandbox_id!r}", hint="run `sandboxer list --all`")
            after = edit(record)
            return Change(record=after if after != record else None)

        return self.store.update(sandbox_id, change) or self.current(sandbox_id)
