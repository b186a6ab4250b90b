"""What `expire` costs: over the same teardowns one by one, and when there is nothing to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from measuring import clean, process, sandboxer, seconds
from tests.installations import environment, lay_out
from tests.store.records import full, number

from sandboxer.bootstrap import Installation, install
from sandboxer.models import Request, Sandbox
from sandboxer.store import codec
from sandboxer.store.base import Change, OtherRecords

MANY = 200
LIVE = 10_000


def over(record: Sandbox | None, _others: OtherRecords) -> Change:
    """Let the TTL of a sandbox be over."""
    assert record is not None
    return Change(record=msgspec.structs.replace(record, expires_at=time.time() - 60))


def expiry(root: Path) -> Iterator[tuple[str, float, float, str]]:
    """200 native sandboxes that are over: one `expire` over 200 destroys, on the same installation."""
    lay_out(root)
    here = install(environment(root), relay_in_background=False)

    def made() -> list[str]:
        plan = here.manager.plan(Request(profile="profile.native"))
        return [here.manager.create(plan).id for _ in range(MANY)]

    def swept() -> float:
        for one in made():
            here.store.update(one, over)
        took: float = seconds(lambda: here.manager.expire(apply=True))
        assert not here.manager.list(), "something remained"
        return took

    def one_by_one() -> float:
        ids = made()
        took: float = seconds(lambda: [here.manager.destroy(one) for one in ids])
        return took

    first, second = swept(), one_by_one()
    yield f"expire of {MANY} native / {MANY} destroys", 0.6, first / second, f"{first:.2f} s / {second:.2f} s"
    clean(here)


def nothing_to_do(root: Path) -> Iterator[tuple[str, float, float, str]]:
    """`expire --apply`, the whole process, with 10,000 live native records; seconds."""
    lay_out(root)
    here = install(environment(root), relay_in_background=False)
    _fill(here, root)
    command = process(*sandboxer("expire", "--apply"), env=environment(root))
    command()
    took = sorted(seconds(command) for _ in range(5))[2]
    yield f"expire, nothing to do, {LIVE:,} live native records, in s", 1.0, took, f"{took:.2f} s"


def _fill(here: Installation, root: Path) -> None:
    end = time.time() + 86400
    records = (
        msgspec.structs.replace(
            full(number(n), n), extension="ext.native", state="ready", host="local", expires_at=end, metering=None
        )
        for n in range(LIVE)
    )
    lines = {record.id: codec.encode_sandbox(record) for record in records}
    content = codec.Content(install=here.store.install_id, revision=1, records=lines, outbox=[])
    (root / "data" / "sandboxes.json").write_bytes(codec.render(content))


PARTS: dict[str, Callable[[Path], Iterator[tuple[str, float, float, str]]]] = {
    "expire": expiry,
    "expire-idle": nothing_to_do,
}
