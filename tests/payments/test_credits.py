"""credits.json: many processes, bytes that are not ours, a full disk, and the archive."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sandboxer.errors import Conflict, InsufficientCredits, Invalid, SandboxerError, StoreCorrupt, Unavailable
from sandboxer.models import Budget
from sandboxer.payments import ledger
from sandboxer.payments.credits import Balance, Credits
from sandboxer.store.document import AtomicDocument, VersionStamp
from tests.store.faulty import WithoutLock
from tests.store.neighbours import together
from tests.store.volumes import Memory, Volume
from tests.testbed.components import need
from tests.testbed.waiting import eventually

ONE = Decimal(1)
OPS = "adm:ops"


def purse(root: Path, *, install: str = "here", **budgets: Budget) -> Credits:
    named = {name.replace("_", ":"): budget for name, budget in budgets.items()}
    return Credits(root, named, install=lambda: install)


def document(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "credits.json").read_text())
    return found


def test_looking_and_giving_back_write_nothing(tmp_path: Path) -> None:
    """A free sandbox touches no credits."""
    mine = purse(tmp_path / "data")
    assert mine.show().available_usd == "0"
    assert list(mine.open()) == []
    assert mine.covers(Decimal(0), consumer=OPS) is None
    mine.reserve("k3v9x2m7q4ta", Decimal(0), consumer=OPS)
    mine.release("k3v9x2m7q4ta")
    assert not (tmp_path / "data").exists()


def test_the_document_reads_as_it_was_designed(tmp_path: Path) -> None:
    mine = purse(tmp_path, adm_ops=Budget(usd="5", per="month"))
    mine.add(Decimal(20), note="a voucher", actor=OPS)
    mine.reserve("k3v9x2m7q4ta", Decimal("1.5"), consumer=OPS)
    shown = mine.show()
    (held,) = shown.reservations
    (budget,) = shown.budgets
    assert (shown.currency, shown.added_usd, shown.spent_usd, shown.reserved_usd) == ("USD", "20", "0", "1.5")
    assert (shown.balance_usd, shown.available_usd) == ("20", "18.5")
    assert (held.sandbox_id, held.consumer, held.usd, held.since[-1]) == ("k3v9x2m7q4ta", OPS, "1.5", "Z")
    assert (budget.consumer, budget.usd, budget.per) == (OPS, "5", "month")
    assert (budget.spent_usd, budget.reserved_usd, budget.available_usd) == ("0", "1.5", "3.5")


def test_the_file_is_private_and_jq_can_add_it_up(tmp_path: Path) -> None:
    mine = purse(tmp_path)
    mine.add(Decimal(2), note="é", actor=OPS)
    mine.reserve("k3v9x2m7q4ta", ONE, consumer=OPS)
    mine.settle("k3v9x2m7q4ta", Decimal("0.25"), usage_id="use-k3v9x2m7q4ta", overrun=Decimal("0.5"))
    found = document(tmp_path)
    assert found["schema_version"] == 1
    assert found["accounts"] == {"granted": -2_000_000, "available": 1_750_000, "reserved": 0, "spent": 250_000}
    assert [entry["kind"] for entry in found["entries"]] == ["add", "reserve", "settle"]
    assert sum(posting["micro_usd"] for entry in found["entries"] for posting in entry["postings"]) == 0
    assert found["entries"][-1]["overrun_micro_usd"] == 500_000
    assert (tmp_path / "credits.json").stat().st_mode & 0o777 == 0o600


def _one_of_many(root: Path, kind: type[AtomicDocument], number: int, gate: Any, answers: Any) -> None:
    mine = Credits(root, {}, install=lambda: "here", document=kind(root / "credits.json"))
    gate.wait()
    try:
        mine.reserve(f"sandbox{number:05d}", ONE, consumer=OPS)
    except InsufficientCredits:
        answers.put("refused")
    except SandboxerError:
        answers.put("broken")  # only without the lock
    else:
        answers.put("reserved")


def _crowd(root: Path, kind: type[AtomicDocument]) -> list[str]:
    """What 64 processes came to that each wanted one of ten dollars, all at once."""
    purse(root).add(Decimal(10))
    fork = multiprocessing.get_context("fork")
    gate, answers = fork.Barrier(64), fork.Queue()
    crowd = [fork.Process(target=_one_of_many, args=(root, kind, number, gate, answers)) for number in range(64)]
    for one in crowd:
        one.start()
    found = [answers.get(timeout=120) for _ in crowd]
    for one in crowd:
        one.join(timeout=60)
    return found


def test_of_64_processes_that_reserve_at_once_against_a_balance_for_10_exactly_10_succeed(tmp_path: Path) -> None:
    """Promise 19: spent + reserved + requested never exceed the balance, whoever asks at the same time."""
    found = _crowd(tmp_path, AtomicDocument)
    assert (found.count("reserved"), found.count("refused")) == (10, 54)
    shown = purse(tmp_path).show()
    assert (shown.available_usd, shown.reserved_usd, len(shown.reservations)) == ("0", "10", 10)


def test_the_crowd_sees_a_book_without_its_lock(tmp_path: Path) -> None:
    assert any(_crowd(tmp_path / str(turn), WithoutLock).count("reserved") != 10 for turn in range(3))


def _threads(mine: Credits, acts: Sequence[Callable[[], object]]) -> list[object]:
    """What acts come to that come at once, from threads that share a purse."""

    def hold(middle: Callable[[], None]) -> None:
        def nothing(book: ledger.Book, _at: float) -> ledger.Book:
            middle()
            return book

        mine._change(nothing)

    def gathered(waiting: int) -> None:
        eventually(lambda: mine._commits.waiting == waiting, within=30, what="they wait", every=0.001)

    return together(acts, hold=hold, gathered=gathered)


def test_of_50_threads_that_reserve_at_once_against_a_balance_for_10_the_first_10_succeed_by_one_write(
    tmp_path: Path,
) -> None:
    """Promise 19, within one process: each sees what those before it took."""
    purse(tmp_path).add(Decimal(10))
    mine = purse(tmp_path)
    before = document(tmp_path)["revision"]
    acts = [partial(mine.reserve, f"sandbox{n:05d}", ONE, consumer=OPS) for n in range(50)]
    found = _threads(mine, acts)
    assert found[:10] == [None] * 10
    assert [type(one) for one in found[10:]] == [InsufficientCredits] * 40
    assert next(one.sandbox_id for one in found if isinstance(one, InsufficientCredits)) == "sandbox00010"
    assert document(tmp_path)["revision"] == before + 1
    assert [entry["seq"] for entry in document(tmp_path)["entries"]] == list(range(1, 12))
    shown = purse(tmp_path).show()
    assert (shown.available_usd, shown.reserved_usd, len(shown.reservations)) == ("0", "10", 10)


def test_money_that_comes_back_along_with_a_wish_for_it_is_there_for_it(tmp_path: Path) -> None:
    mine = purse(tmp_path)
    mine.add(ONE)
    mine.reserve("k3v9x2m7q4ta", ONE, consumer=OPS)
    found = _threads(
        mine,
        [
            partial(mine.settle, "k3v9x2m7q4ta", Decimal("0.25"), usage_id="use-k3v9x2m7q4ta"),
            partial(mine.settle, "k3v9x2m7q4ta", Decimal("0.25"), usage_id="use-k3v9x2m7q4ta"),
            partial(mine.reserve, "k3v9x2m7q4tb", Decimal("0.75"), consumer=OPS),
            partial(mine.release, "k3v9x2m7q4tb"),
            partial(mine.reserve, "k3v9x2m7q4tc", Decimal("0.5"), consumer=OPS),
        ],
    )
    assert found == [None] * 5
    shown = purse(tmp_path).show()
    assert (shown.spent_usd, shown.reserved_usd, shown.available_usd) == ("0.25", "0.5", "0.25")


VICTIM = """
import sys
from decimal import Decimal
from pathlib import Path
from sandboxer.payments.credits import Balance, Credits
mine = Credits(Path(sys.argv[1]), {}, install=lambda: "here")
number = 0
while True:
    number += 1
    name = f"sandbox{number:05d}"
    mine.reserve(name, Decimal("0.01"), consumer="adm:ops")
    mine.settle(name, Decimal("0.004"), usage_id="use-" + name)
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_at_any_moment_leaves_a_whole_book_and_loses_nothing_it_said(tmp_path: Path) -> None:
    """Promises 10 and 19, for credits.json: SIGKILL at random moments of a stream of writes."""
    for number in range(12):
        root = tmp_path / str(number)
        purse(root).add(Decimal(1000))
        with subprocess.Popen([sys.executable, "-c", VICTIM, str(root)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.003 * number)  # the moment of the kill, not a wait for anything
            os.kill(writer.pid, signal.SIGKILL)
            said = [int(line) for line in writer.stdout.read().split()]
        last = said[-1] if said else 1
        spent = Decimal(purse(root).show().spent_usd)
        assert Decimal("0.004") * last <= spent <= Decimal("0.004") * (last + 1)
        assert len(purse(root).open()) <= 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda _: b"", "is empty"),
        (lambda data: data[: len(data) // 2], "is not a book of ours"),
        (lambda _: b"\x00\xff garbage", "is not a book of ours"),
        (lambda data: data.replace(b'"schema_version":1', b'"schema_version":9'), "newer sandboxer"),
        (lambda data: data.replace(b'"install":"here"', b'"install":"elsewhere"'), "another installation"),
        (lambda data: data.replace(b'"available":9000000', b'"available":9900000'), "does not add up"),
        (lambda data: data.replace(b'"keys":{}', b'"keys":{"k":{"micro_usd":10000001,"at":0}}'), "does not add up"),
        (lambda data: data.replace(b'"keys":{}', b'"keys":{"k":{"micro_usd":0,"at":0}}'), "does not add up"),
        (lambda data: data.replace(b'"seq":2,"entries"', b'"more":1,"seq":2,"entries"'), "is not a book of ours"),
        (lambda data: data.replace(b'"micro_usd":1000000,"s', b'"micro_usd":"1","s'), "is not a book of ours"),
        (lambda data: data.replace(b'"seq":2,"entries"', b'"seq":9,"seq":2,"entries"'), "is there twice"),
    ],
)  # fmt: skip
def test_a_book_that_is_not_ours_is_refused_with_its_bytes_kept(
    tmp_path: Path, spoil: Callable[[bytes], bytes], said: str
) -> None:
    """Promise 13, for credits.json."""
    mine = purse(tmp_path)
    mine.add(Decimal(10))
    mine.reserve("k3v9x2m7q4ta", ONE, consumer=OPS)
    file = tmp_path / "credits.json"
    spoiled = spoil(file.read_bytes())
    assert spoiled != file.read_bytes()
    file.write_bytes(spoiled)
    acts: list[Callable[[], object]] = [
        mine.show,
        mine.open,
        lambda: mine.add(ONE),
        lambda: mine.covers(ONE, consumer=OPS),
        lambda: mine.reserve("k3v9x2m7q4tb", ONE, consumer=OPS),
        lambda: mine.settle("k3v9x2m7q4ta", ONE, usage_id="use-k3v9x2m7q4ta"),
        lambda: mine.release("k3v9x2m7q4ta"),
    ]
    for act in acts:
        with pytest.raises(StoreCorrupt, match=said) as caught:
            act()
        assert caught.value.hint
    assert file.read_bytes() == spoiled


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    need("root", "mount", "mkfs.ext4")
    with Memory(tmp_path / "volume", size_mb=16) as made:
        yield made


def test_a_full_disk_takes_no_reservation_and_still_records_a_charge(volume: Volume) -> None:
    """Promise 14, for credits.json: nothing is promised that cannot be written; what ended is settled all the same."""
    data = volume.path / "data"
    mine = purse(data)
    mine.add(Decimal(10))
    mine.reserve("k3v9x2m7q4ta", ONE, consumer=OPS)
    volume.fill()
    before = (data / "credits.json").read_bytes()
    with pytest.raises(Unavailable, match=r"no space left.*credits\.json"):
        mine.reserve("k3v9x2m7q4tb", ONE, consumer=OPS)
    with pytest.raises(Unavailable):
        mine.add(ONE)
    assert (data / "credits.json").read_bytes() == before
    found = _threads(
        mine,
        [
            partial(mine.reserve, "k3v9x2m7q4tc", ONE, consumer=OPS),
            partial(mine.settle, "k3v9x2m7q4ta", Decimal("0.5"), usage_id="use-k3v9x2m7q4ta"),
            partial(mine.add, ONE),
        ],
    )
    assert [type(one) for one in found] == [Unavailable, type(None), Unavailable], "each as it would alone"
    assert (mine.show().spent_usd, mine.show().added_usd, mine.show().reserved_usd) == ("0.5", "10", "0")


def test_old_entries_move_to_the_archive_and_none_is_lost(tmp_path: Path) -> None:
    """Also when the process dies between the archive and the document: then an entry is in both, with its number."""
    deaths = _Dying(tmp_path / "credits.json")
    mine = Credits(tmp_path, {}, install=lambda: "here", document=deaths)
    whole = ledger.KEPT + ledger.SPARE
    for _ in range(whole):
        mine.add(Decimal("0.01"))
    deaths.dies = True
    with pytest.raises(_Died):
        mine.add(Decimal("0.01"))
    deaths.dies = False
    mine.add(Decimal("0.01"))
    kept = [entry["seq"] for entry in document(tmp_path)["entries"]]
    (file,) = (tmp_path / "archive").glob("credits-*.jsonl")
    gone = [json.loads(line)["seq"] for line in file.read_text().splitlines()]
    assert kept == list(range(whole + 2 - ledger.KEPT, whole + 2))
    assert set(kept) | set(gone) == set(range(1, whole + 2))
    assert document(tmp_path)["carried"]["available"] == (whole + 1 - ledger.KEPT) * 10_000
    assert mine.show().added_usd == "12.51"


class _Died(BaseException):
    """The process was killed."""


class _Dying(AtomicDocument):
    dies = False

    def replace(self, data: bytes, *, must_succeed: bool = False) -> VersionStamp | None:
        if self.dies:
            raise _Died
        return super().replace(data, must_succeed=must_succeed)


def test_a_note_that_could_steer_a_terminal_is_refused(tmp_path: Path) -> None:
    for note in ("\x1b[2J", "x" * 201, "two\nlines"):
        with pytest.raises(Invalid):
            purse(tmp_path).add(ONE, note=note)
    assert not (tmp_path / "credits.json").exists()


def test_credits_that_are_added_again_under_their_key_are_added_once_however_much_later(tmp_path: Path) -> None:
    """Promise 19, for a cron job that repeats itself: also when the entry has gone to the archive meanwhile."""
    first = purse(tmp_path).add(Decimal("2.5"), key="2026-11")
    written = (tmp_path / "credits.json").read_bytes()
    assert purse(tmp_path).add(Decimal("2.50"), key="2026-11", note="again", actor=OPS) == first
    assert (tmp_path / "credits.json").read_bytes() == written
    mine = purse(tmp_path)
    for _ in range(ledger.KEPT + ledger.SPARE):
        mine.add(Decimal("0.01"))
    assert document(tmp_path)["entries"][0]["seq"] > 1, "the entry of the key is in the archive"
    assert purse(tmp_path).add(Decimal("2.5"), key="2026-11").added_usd == "15"
    assert purse(tmp_path).add(Decimal("2.5"), key="2026-12").added_usd == "17.5"
    assert mine.added_at("2026-11") is not None
    assert mine.added_at("2027-01") is None


def test_a_key_that_was_used_for_another_amount_adds_nothing_and_is_a_conflict(tmp_path: Path) -> None:
    mine = purse(tmp_path)
    mine.add(ONE, key="2026-11")
    with pytest.raises(Conflict, match="for another amount: 1 USD"):
        mine.add(Decimal("1.000001"), key="2026-11")
    assert mine.show().added_usd == "1"


def test_of_threads_and_processes_that_add_at_once_under_one_key_one_adds(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    gate, answers = fork.Barrier(8), fork.Queue()
    crowd = [fork.Process(target=_adds, args=(tmp_path, gate, answers)) for _ in range(8)]
    for one in crowd:
        one.start()
    assert [answers.get(timeout=60) for _ in crowd] == ["10"] * 8
    for one in crowd:
        one.join(60)
    mine = purse(tmp_path)
    shown = _threads(mine, [partial(mine.add, ONE, key="more") for _ in range(8)])
    assert [one.added_usd for one in shown if isinstance(one, Balance)] == ["11"] * 8
    assert mine.show().added_usd == "11"
    assert [entry["kind"] for entry in document(tmp_path)["entries"]] == ["add", "add"]


def _adds(root: Path, gate: Any, answers: Any) -> None:
    gate.wait()
    answers.put(purse(root).add(Decimal(10), key="2026-11").added_usd)


def test_a_budget_that_was_lowered_since_leaves_nothing_and_takes_nothing_back(tmp_path: Path) -> None:
    purse(tmp_path).add(Decimal(10))
    purse(tmp_path, adm_ops=Budget(usd="5")).reserve("k3v9x2m7q4ta", Decimal(4), consumer=OPS)
    lowered = purse(tmp_path, adm_ops=Budget(usd="0"))
    assert lowered.show().budgets[0].available_usd == "0"
    assert lowered.spare(OPS) == 0
    with pytest.raises(InsufficientCredits, match="the budget of adm:ops has 0 left"):
        lowered.reserve("k3v9x2m7q4tb", ONE, consumer=OPS)
    lowered.reserve("k3v9x2m7q4ta", Decimal(3), consumer=OPS)
    assert lowered.show().reserved_usd == "3"


def test_the_budget_of_anybody_holds_for_each_that_is_not_named(tmp_path: Path) -> None:
    mine = Credits(tmp_path, {"*": Budget(usd="1"), OPS: Budget(usd="3")}, install=lambda: "here")
    mine.add(Decimal(10))
    mine.reserve("k3v9x2m7q4ta", Decimal(3), consumer=OPS)
    for number, consumer in enumerate(["agt:one", "agt:two"]):
        mine.reserve(f"k3v9x2m7q4t{number}", ONE, consumer=consumer)
        assert mine.covers(Decimal("0.000001"), consumer=consumer) is not None
    assert [share.consumer for share in mine.show().budgets] == [OPS, "agt:one", "agt:two"]
