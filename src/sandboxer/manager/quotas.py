"""Hold a consumer to its quota: how many sandboxes at once, creates a minute, commands at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from sandboxer.errors import OverQuota
from sandboxer.manager import limits
from sandboxer.manager.access import consumer_name
from sandboxer.manager.services import Services
from sandboxer.models import Consumer, Quota, Sandbox
from sandboxer.state import LIVE
from sandboxer.store.base import OtherRecords, holds_name

ANYBODY: Final = "*"


def quota_of(quotas: Mapping[str, Quota], consumer: Consumer) -> Quota:
    """The quota that holds for a consumer: its own, else the one for anybody, else none."""
    return quotas.get(consumer_name(consumer)) or quotas.get(ANYBODY) or Quota()


def check_live(quota: Quota, consumer: Consumer, others: OtherRecords, *, without: str | None = None) -> None:
    """Raises OverQuota when a consumer has as many sandboxes as it may. To be asked in the write that adds one."""
    if quota.live is None:
        return
    there = _count(record for record in others.of_consumer(consumer) if record.id != without)
    if there >= quota.live:
        raise OverQuota(
            f"{consumer_name(consumer)} has as many sandboxes as it may have at once: {quota.live}",
            retry_after=limits.DEFAULT.retry_live,
            hint="destroy one that is not needed",
        )


def _count(records: Iterable[Sandbox]) -> int:
    """All that live, but for those of which nothing is left."""
    return sum(1 for record in records if record.state in LIVE and holds_name(record))


def take_create(services: Services, quota: Quota, consumer: Consumer) -> None:
    """Count one more create; raises OverQuota when it is one too many in a minute."""
    if quota.creates_per_minute is not None:
        wait = services.recent.take(consumer_name(consumer), quota.creates_per_minute, at=services.clock())
        _refuse_until(wait, quota, consumer)


def check(services: Services, consumer: Consumer, *, without: str | None = None) -> None:
    """Raises OverQuota when a create would; counts nothing. `without`: a sandbox that will have gone by then."""
    quota = quota_of(services.settings.quotas, consumer)
    if quota.live is not None:
        check_live(quota, consumer, services.store.others(), without=without)
    if quota.creates_per_minute is not None:
        wait = services.recent.wait(consumer_name(consumer), quota.creates_per_minute, at=services.clock())
        _refuse_until(wait, quota, consumer)


def _refuse_until(wait: float | None, quota: Quota, consumer: Consumer) -> None:
    if wait is not None:
        raise OverQuota(
            f"{consumer_name(consumer)} has begun as many sandboxes as it may in a minute: {quota.creates_per_minute}",
            retry_after=wait,
        )


@contextmanager
def exec_slot(services: Services, consumer: Consumer) -> Iterator[None]:
    """Hold one of a consumer's slots for commands; raises OverQuota when all are taken."""
    quota = quota_of(services.settings.quotas, consumer)
    if quota.execs is None:
        yield
        return
    slot = services.slots.try_take(consumer_name(consumer), quota.execs)
    if slot is None:
        raise OverQuota(
            f"{consumer_name(consumer)} runs as many commands as it may at once: {quota.execs}",
            retry_after=services.limits.retry_exec,
            hint="wait until one has ended",
        )
    with slot:
        yield
