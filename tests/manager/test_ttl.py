"""set-ttl: the end is so long from now, sooner or later than agreed so far."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxer.errors import Conflict, Invalid, SandboxerError, Unavailable
from sandboxer.extensions.base import Exec
from sandboxer.extensions.directories.sandbox import marker
from sandboxer.hosts.base import Streams
from sandboxer.testing.fake import Faults
from sandboxer.timing import MAX_SECONDS
from tests.installations import create, installed
from tests.manager.metered import SECOND, Bank, MeteredFake


def test_set_ttl_counts_from_now_and_may_be_sooner(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    record = bank.create()
    bank.now += 100
    assert bank.manager.set_ttl(record.id, 60).expires_at == bank.now + 60
    assert bank.manager.set_ttl(record.id, 3000).expires_at == bank.now + 3000
    assert bank.manager.set_ttl(record.id, 3000).expires_at == bank.now + 3000
    told = [event.event_type for event in bank.manager.events() if event.event_type.startswith("sandbox.")]
    assert told[-3:] == ["sandbox.shortened", "sandbox.extended", "sandbox.extended"]
    shown = marker(tmp_path / "work" / "fake" / f"sbx-{record.id}")
    assert shown["sandboxer.expires"] == str(int(bank.now + 3000))


def test_set_ttl_is_capped_by_the_maximum_from_creation_on(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    record = bank.create()
    bank.now += 600
    with pytest.raises(Invalid) as caught:
        bank.manager.set_ttl(record.id, 4 * 3600)
    assert "3h50m" in caught.value.hint
    assert bank.manager.set_ttl(record.id, 4 * 3600 - 600).expires_at == record.created_at + 4 * 3600


def test_set_ttl_gives_back_at_once_what_a_shorter_life_does_not_need(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    record = bank.create()
    assert bank.reserved == 1000 * SECOND
    bank.now += 100
    bank.manager.set_ttl(record.id, 50)
    assert bank.reserved == 150 * SECOND
    bank.manager.set_ttl(record.id, 400)
    assert bank.reserved == 500 * SECOND


def test_set_ttl_gives_an_end_to_what_never_expired(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    record = bank.create(profile="profile.endless")
    assert record.expires_at is None
    bank.manager.set_ttl(record.id, 600)
    assert bank.reserved == 600 * SECOND
    bank.now += 601
    assert [action.outcome for action in bank.manager.expire(apply=True).actions] == ["done"]


def test_no_end_is_further_off_than_the_longest_duration(tmp_path: Path) -> None:
    """Again and again it came to the year 10001, which no document can say."""
    bank = Bank(tmp_path, money="1000000")
    record = bank.create(profile="profile.endless")
    bank.manager.set_ttl(record.id, MAX_SECONDS - 600)
    ends = bank.manager.extend_ttl(record.id, 600).expires_at
    with pytest.raises(Invalid, match="3650d from now at the latest") as refused:
        bank.manager.extend_ttl(record.id, 1)
    assert refused.value.hint == "its end is that far off already"
    bank.now += 60
    with pytest.raises(Invalid) as refused:
        bank.manager.extend_ttl(record.id, 61)
    assert refused.value.hint == "give --duration 1m or less"
    assert bank.manager.get(record.id).expires_at == ends
    assert bank.manager.extend_ttl(record.id, 60).expires_at == bank.now + MAX_SECONDS


def test_a_shorter_life_that_the_backend_did_not_take_changes_nothing(tmp_path: Path) -> None:
    faults = Faults({"renew": Unavailable("no answer")})
    bank = Bank(tmp_path, extension=lambda: MeteredFake(faults))
    record = bank.create()
    with pytest.raises(Unavailable):
        bank.manager.set_ttl(record.id, 60)
    assert bank.manager.get(record.id).expires_at == record.expires_at
    assert bank.reserved == 1000 * SECOND


def test_set_ttl_of_what_has_ended_is_a_conflict(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here)
    here.manager.destroy(record.id)
    with pytest.raises(Conflict):
        here.manager.set_ttl(record.id, 60)


def test_an_error_names_the_sandbox_that_was_meant(tmp_path: Path) -> None:
    """Who asks by a name learns which one it was, whatever the verb, unless another one is named."""
    here = installed(tmp_path)
    record, other = create(here, name="web"), create(here, name="shop")
    quiet = Streams(stdout=lambda _: None, stderr=lambda _: None)
    verbs: list[Callable[[], object]] = [
        lambda: here.manager.extend_ttl("web", MAX_SECONDS),
        lambda: here.manager.set_ttl("web", MAX_SECONDS),
        lambda: here.manager.label("web", {"sandboxer.id": "x"}),
        lambda: here.manager.stop("web"),
        lambda: here.manager.wait("web", "stopped"),
        lambda: here.manager.logs("web", quiet, service="/"),
        lambda: here.manager.exec("web", Exec(argv=("sleep", "60")), quiet, timeout=1),
    ]
    for verb in verbs:
        with pytest.raises(SandboxerError) as refused:
            verb()
        assert refused.value.sandbox_id == record.id, refused.value.message
    with pytest.raises(Conflict) as taken:
        here.manager.rename("web", "shop")
    assert taken.value.sandbox_id == other.id
