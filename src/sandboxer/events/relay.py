"""Send pending events to a neighbour: at least once, in order for each sandbox, one relay to it at a time.

An event is marked sent only after the answer, so a crash may send it again, with the same id and time. An event that
cannot be taken now keeps back the later ones of its own sandbox, nobody else's; one that is refused for good is parked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sandboxer.events.delivery import REQUEST_SECONDS, EventSender
from sandboxer.events.relay_lock import acquire_relay_lock, lock_name, waiter_lock_name
from sandboxer.events.sink import Delivered, DeliveryResult, Rejected, RetryLater, Sink, SinkDown, state_hub
from sandboxer.models import Event, HubSettings, Value
from sandboxer.store.base import Store
from sandboxer.timing import Deadline

BATCH: Final = 20
"""How many answers one store write settles: a crash re-sends at most as many."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
_PAUSES: Final = 3
"""How often in one flush an event waits because the neighbour asks for it."""
_SLOW_IN_A_ROW: Final = 3
"""After so many events without an answer in time the neighbour counts as down."""
_BUSY = "another relay is sending just now"


class SinkReport(Value, frozen=True, kw_only=True):
    """What a flush did for one neighbour."""

    sink: str
    sent: int = 0
    parked: int = 0
    pending: int = 0
    error: str | None = None


class FlushReport(Value, frozen=True, kw_only=True):
    """What a flush did: events sent, refused for good (parked), still waiting; why any of them wait; alarms. `sinks`
    tells it of each neighbour by itself."""

    sent: int = 0
    parked: int = 0
    pending: int = 0
    error: str | None = None
    warnings: Sequence[str] = ()
    sinks: Sequence[SinkReport] = ()


class Relay:
    """Sends the waiting events of a store to one neighbour, which `sink` makes of its address: the State Hub, or
    fin-hub.

    `directory` is the data directory, for the lock; `request_seconds` is the end of each request.
    Raises NotConfigured without an address, Invalid for one that cannot be used."""

    def __init__(
        self,
        store: Store,
        endpoint: HubSettings,
        directory: Path,
        *,
        sink: Callable[[HubSettings], Sink] = state_hub,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self._store = store
        self._sink: Sink = sink(endpoint)
        self._directory = directory
        self._courier = EventSender(self._sink, seconds=request_seconds)

    def flush(self, deadline: Deadline, *, wait: bool = True, parked: bool = False) -> FlushReport:
        """Send what waits, until nothing new does, the neighbour is down, or the deadline.

        `wait` waits for a relay that is at work, up to the deadline; else this one leaves it to the other, which looks
        again when it has finished. `parked` also tries what was refused, after a token or an address was mended.
        What the neighbour does is in the report; raises only what the store raises."""
        flush = _Flush(self._store, self._sink, deadline, also_parked=parked)
        while True:
            with acquire_relay_lock(
                self._directory / lock_name(self._sink.kind), deadline if wait else Deadline(0)
            ) as got:
                if not got:
                    return flush.report(error=_BUSY)
                flush.send_all(self._courier.deliver)
            # Looked at without the lock: whoever found it taken before this has left their events to us.
            if flush.over or not flush.candidates():
                return flush.report()

    def run(self, deadline: Deadline, *, pause: Callable[[float], None] = time.sleep) -> FlushReport:
        """For a process of its own: flush until nothing waits, with pauses of 1 to 60 s while the neighbour is down.

        One process at a time waits like this; another one tries once, and ends."""
        with acquire_relay_lock(self._directory / waiter_lock_name(self._sink.kind), Deadline(0)) as got:
            seconds = FIRST_PAUSE
            while True:
                report = self.flush(deadline, wait=False)
                left = deadline.seconds(LONGEST_PAUSE)
                if not got or not report.pending or left < seconds:
                    return report
                pause(seconds)
                seconds = FIRST_PAUSE if report.sent else min(seconds * 2, LONGEST_PAUSE)


class Relays:
    """The relays to all neighbours that are configured. Each works on a thread of its own: one that is dead or slow
    does not hold up the others."""

    def __init__(self, relays: Sequence[Relay]) -> None:
        self.each: Final = tuple(relays)

    def flush(self, deadline: Deadline, *, parked: bool = False) -> FlushReport:
        """`Relay.flush` of each."""
        return self._all(lambda relay: relay.flush(deadline, parked=parked))

    def run(self, deadline: Deadline) -> FlushReport:
        """`Relay.run` of each."""
        return self._all(lambda relay: relay.run(deadline))

    def _all(self, do: Callable[[Relay], FlushReport]) -> FlushReport:
        if len(self.each) == 1:
            return do(self.each[0])
        from concurrent.futures import ThreadPoolExecutor

        from sandboxer.models.prepared import prepare

        prepare()
        with ThreadPoolExecutor(max_workers=max(1, len(self.each))) as pool:
            return merge_reports(list(pool.map(do, self.each)))


def merge_reports(reports: Sequence[FlushReport]) -> FlushReport:
    """Merge several reports into one."""
    return FlushReport(
        sent=sum(report.sent for report in reports),
        parked=sum(report.parked for report in reports),
        pending=sum(report.pending for report in reports),
        error="; ".join(report.error for report in reports if report.error) or None,
        warnings=[warning for report in reports for warning in report.warnings],
        sinks=[sink for report in reports for sink in report.sinks],
    )


class _Flush:
    """One flush: what has been tried, what it came to, what must wait."""

    def __init__(self, store: Store, sink: Sink, deadline: Deadline, *, also_parked: bool) -> None:
        self._store = store
        self._sink = sink
        self._deadline = deadline
        self._wanted = frozenset({"pending", "parked"} if also_parked else {"pending"})
        self._tried: set[str] = set()
        self._waiting: set[str] = set()  # sandboxes, by id
        self._unsettled: list[Event] = []
        self._sent = self._parked = self._slow = 0
        self._error: str | None = None
        self._warnings: list[str] = []
        self.over = False

    def candidates(self) -> list[Event]:
        """Events to be sent that were not tried yet and do not stand behind another, in the order of their commits."""
        return [
            event
            for event in self._store.events()
            if event.sink == self._sink.kind
            and event.status in self._wanted
            and event.event_id not in self._tried
            and _queue(event) not in self._waiting
        ]

    def send_all(self, deliver: Callable[[Event, Deadline], DeliveryResult]) -> None:
        """One pass over the candidates. What was answered is settled also when something unforeseen ends it."""
        try:
            for event in self.candidates():
                if self._deadline.passed:
                    self._stop("the time is up")
                if self.over:
                    return
                if _queue(event) in self._waiting:
                    continue
                self._tried.add(event.event_id)
                self._take(event, self._answer(event, deliver))
                if len(self._unsettled) >= BATCH:
                    self._settle()
        finally:
            self._settle()

    def report(self, *, error: str | None = None) -> FlushReport:
        """Report what was done so far."""
        ours = (event for event in self._store.events() if event.sink == self._sink.kind)
        pending = sum(event.status == "pending" for event in ours)
        why = (error or self._error) if pending else None
        alone = SinkReport(sink=self._sink.kind, sent=self._sent, parked=self._parked, pending=pending, error=why)
        return FlushReport(
            sent=self._sent,
            parked=self._parked,
            pending=pending,
            error=why,
            warnings=tuple(self._warnings),
            sinks=(alone,),
        )

    def _answer(self, event: Event, deliver: Callable[[Event, Deadline], DeliveryResult]) -> DeliveryResult:
        """The last word on an event. A pause that the neighbour asks for is made if there is time for it, and as much
        again for the other events: one that is put off for ever must not use up the time of each flush."""
        for _ in range(_PAUSES):
            answer = deliver(event, self._deadline)
            if not isinstance(answer, RetryLater) or answer.after is None:
                return answer
            pause = max(answer.after, 0.05)  # "at once" is no reason to spin
            if self._deadline.seconds(2 * pause) < 2 * pause:
                return answer
            self._settle()  # not while something is unsettled: it could be a long one
            over = self._deadline.shorter(pause)
            while not over.passed:
                time.sleep(over.seconds(0.2))  # in pieces: the deadline may be cancelled
        return deliver(event, self._deadline)

    def _take(self, event: Event, answer: DeliveryResult) -> None:
        if not isinstance(answer, RetryLater):
            self._slow = 0
        match answer:
            case Delivered():
                self._sent += 1
                self._unsettled.append(msgspec.structs.replace(event, status="sent", note=None))
            case Rejected(reason=reason):
                self._parked += 1
                self._warnings.append(
                    f"the {self._sink.name} at {self._sink.shown} refused {event.event_type} {event.event_id}: {reason}"
                )
                self._unsettled.append(msgspec.structs.replace(event, status="parked", note=f"refused: {reason}"))
            case RetryLater(reason=reason, slow=slow):
                self._waiting.add(_queue(event))
                self._error = self._explain(reason)
                self._slow = self._slow + 1 if slow else 0
                self.over = self._slow >= _SLOW_IN_A_ROW
            case SinkDown(reason=reason):
                self._stop(reason)

    def _stop(self, reason: str) -> None:
        self._error = self._explain(reason)
        self.over = True

    def _explain(self, reason: str) -> str:
        return f"the {self._sink.name} at {self._sink.shown}: {reason}"

    def _settle(self) -> None:
        settled, self._unsettled = self._unsettled, []
        if settled:
            self._store.settle_events(settled)


def _queue(event: Event) -> str:
    """What an event must not overtake: the earlier ones of its sandbox."""
    return str(event.detail.get("sandbox_id") or event.event_id)
