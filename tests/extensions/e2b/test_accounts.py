"""Another key, another address: what is not seen is not gone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest

from sandboxer.errors import NotConfigured, SandboxerError
from sandboxer.extensions.base import Exec
from sandboxer.extensions.e2b import E2BExtension
from sandboxer.extensions.e2b.handle import LONGEST, sandbox_data
from sandboxer.hosts.base import Streams
from sandboxer.models import Handle
from tests.extensions.e2b.harness import context, made
from tests.fakes.e2b import FakeE2B

OURS, SAME, OTHER = "e2b_ours", "e2b_ours_renewed", "e2b_of_somebody_else"


@pytest.fixture(scope="module")
def cloud() -> Iterator[FakeE2B]:
    with FakeE2B(keys={OURS: "us", SAME: "us", OTHER: "them"}) as fake:
        yield fake


def aged(handle: Handle, *, by: float, **more: object) -> Handle:
    """The handle of a sandbox that was made earlier."""
    data = sandbox_data(handle)
    return msgspec.structs.replace(data, born=data.born - by, **more).handle()


def test_with_another_accounts_key_a_sandbox_is_unknown_and_stays(cloud: FakeE2B) -> None:
    """Promise 5: "no such sandbox" from another account says nothing of ours."""
    handle, extension = made(cloud), E2BExtension()
    theirs = context(cloud, key=OTHER)
    assert extension.status(handle, theirs).presence == "unknown"
    with pytest.raises(SandboxerError) as caught:
        extension.teardown(handle, theirs)
    assert caught.value.outcome == "unknown"
    assert "E2B_API_KEY" in caught.value.hint
    assert sandbox_data(handle).id in cloud.census()


def test_with_another_key_of_the_same_account_everything_works(cloud: FakeE2B) -> None:
    handle, extension = made(cloud), E2BExtension()
    ours = context(cloud, key=SAME)
    assert extension.status(handle, ours).presence == "running"
    assert (
        extension.exec(
            handle, Exec(argv=("true",)), Streams(stdout=bytearray().extend, stderr=bytearray().extend), ours
        )
        == 0
    )


def test_after_e2bs_longest_life_what_is_not_seen_is_gone(cloud: FakeE2B) -> None:
    handle, extension = made(cloud), E2BExtension()
    theirs = context(cloud, key=OTHER)
    assert extension.status(aged(handle, by=LONGEST - 60), theirs).presence == "unknown"
    assert extension.status(aged(handle, by=LONGEST + 1), theirs).presence == "absent"


def test_a_paused_sandbox_has_no_end_and_so_is_never_gone_for_another_key(cloud: FakeE2B) -> None:
    saved: list[Handle] = []
    handle, extension = made(cloud), E2BExtension()
    extension.stop(handle, context(cloud, save=saved.append))
    old = aged(saved[-1], by=10 * LONGEST)
    assert extension.status(old, context(cloud, key=OTHER)).presence == "unknown"
    assert extension.status(old, context(cloud)).presence == "stopped"


def test_a_sandbox_of_another_address_names_the_variable(cloud: FakeE2B) -> None:
    handle, extension = made(cloud), E2BExtension()
    with FakeE2B() as elsewhere:
        there = context(elsewhere)
        assert extension.status(handle, there).presence == "unknown"
        with pytest.raises(NotConfigured) as caught:
            extension.teardown(handle, there)
    assert f"E2B_API_URL={cloud.url}" in caught.value.hint


def test_the_same_address_in_another_spelling_is_the_same(cloud: FakeE2B) -> None:
    handle = made(cloud)
    spelled = context(cloud, endpoints={"api": f"{cloud.url}/", "sandbox": cloud.url})
    assert E2BExtension().status(handle, spelled).presence == "running"


def test_a_handle_holds_neither_key_nor_token(cloud: FakeE2B) -> None:
    """Promise 28."""
    handle = made(cloud)
    kept = msgspec.json.encode(handle).decode()
    assert OURS not in kept
    assert cloud.estate.token(sandbox_data(handle).id) not in kept
    assert time.time() - sandbox_data(handle).born < 60


def test_a_handle_of_a_later_version_is_not_guessed_at(cloud: FakeE2B) -> None:
    handle = msgspec.structs.replace(made(cloud), version=99)
    assert E2BExtension().status(handle, context(cloud)).presence == "unknown"
