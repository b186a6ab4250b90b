"""The store contract: `get`, `list`, `update`. Any store passes tests/store's contract suite.

`update` is the one commit point: a record's change and the events that tell of it become durable together, or not
at all. The function given to it is pure, runs under the store's lock, and sees the other records read-only; so unique
names, idempotency keys and (later) budgets are decided there. Nothing slow or outside may run in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from sandboxer.models import Consumer, Event, RecordSummary, Sandbox, Value
from sandboxer.state import State

_FAILED = frozenset({State.FAILED, State.EXPIRED, State.DESTROYING})


class Change(Value, frozen=True, kw_only=True):
    """What an update wants: the record as it shall be, and the facts that tell of it. `record` None changes nothing."""

    record: Sandbox | None = None
    events: Sequence[Event] = ()


def holds_name(record: Sandbox) -> bool:
    """Whether a live record keeps others from having its name: one that failed and of which nothing is left does not,
    so that a create can be tried again under the same name; nor does it on its way out from there."""
    return not (record.clean and record.state in _FAILED)


class OtherRecords(Protocol):
    """The other records, read-only, inside an update: never the one that is updated."""

    def __iter__(self) -> Iterator[Sandbox]:
        """The live (not destroyed) ones, oldest first. Decodes them all: ask by name or key where that will do."""

    def by_name(self, name: str) -> Sandbox | None:
        """The live (not destroyed) record with this name: the one that holds it, else the newest failed one."""

    def by_beginning(self, text: str, *, consumer: Consumer | None = None) -> Sandbox | None:
        """A live (not destroyed) record whose id begins with `text`, if there is one (of `consumer`, when that is
        given)."""

    def by_idempotency_key(self, key: str, *, consumer: Consumer | None = None) -> Sandbox | None:
        """The record, live or ended, that was created with this key (by `consumer`, when that is given)."""

    def of_consumer(self, consumer: Consumer) -> Iterator[Sandbox]:
        """The live (not destroyed) ones of one consumer; the others are not decoded."""


UpdateFn = Callable[[Sandbox | None, OtherRecords], Change]
Predicate = Callable[[RecordSummary | Sandbox], bool]


class Store(ABC):
    """Records of sandboxes, with the outbox of events. All methods may be called from any thread and process.

    Raises StoreCorrupt when the stored bytes are unreadable, foreign or newer (they are left as they are), and
    Unavailable when the disk refuses (full, read-only, I/O error) or others hold the lock too long, Denied when this
    user may not: then the state is as before (or the error's outcome is "unknown").
    """

    @property
    @abstractmethod
    def install_id(self) -> str:
        """The random id of this installation; made on first use and kept."""

    @abstractmethod
    def get(self, sandbox_id: str) -> Sandbox | None:
        """One record by its full id, live or ended (archive included). Never blocks on writers."""

    @abstractmethod
    def find(self, text: str) -> Sequence[Sandbox]:
        """Records whose id is `text` or starts with it (at least 4 characters), or live ones whose name is `text`.

        An exact id is the only answer; a name does not hide the ids that begin with it. The archive is looked at only
        when no other record matches."""

    @abstractmethod
    def list(
        self, *, ended: bool = False, name: str | None = None, only: Predicate | None = None, limit: int | None = None
    ) -> Sequence[Sandbox]:
        """Live records, oldest first; with `ended` also those that are destroyed, archive included. Those alone that
        have this `name`, and that `only` takes, and of these the first `limit`: the rest of the archive is not decoded.

        `only` is asked once of each record, as it was written last."""

    @abstractmethod
    def others(self) -> OtherRecords:
        """All records as they are now, to be asked like those inside an update. Never blocks on writers."""

    @abstractmethod
    def update(self, sandbox_id: str, fn: UpdateFn, *, must_succeed: bool = False) -> Sandbox | None:
        """Apply `fn` to the record (None when there is none) and make its answer durable; returns the record as stored.

        What `fn` raises passes through, and nothing is changed. `must_succeed` may use the reserve that is kept for
        a full disk: it is for recording that something was destroyed."""

    @abstractmethod
    def events(self, *, limit: int | None = None) -> Sequence[Event]:
        """Events that are still kept, in the order of their changes; with `limit` only the newest."""

    @abstractmethod
    def settle_events(self, settled: Iterable[Event]) -> None:
        """Store the new `status` and `note` of these events (matched by `event_id`)."""
