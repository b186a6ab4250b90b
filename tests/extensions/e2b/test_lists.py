"""Lists: complete, or an error; and what one missing row means."""

from __future__ import annotations

import pytest

from sandboxer.errors import SandboxerError
from sandboxer.extensions.e2b import E2BExtension
from sandboxer.extensions.e2b.handle import sandbox_data
from tests.extensions.e2b.harness import context, made, spec
from tests.fakes import Fault
from tests.fakes.e2b import FakeE2B

LIST = "GET /v2/sandboxes"


def test_a_list_of_many_pages_is_complete(fake: FakeE2B) -> None:
    extension = E2BExtension()
    ids = {sandbox_data(extension.provision(spec(), context(fake))).id for _ in range(230)}
    found = extension.inventory(context(fake))
    assert {sandbox_data(one.handle).id for one in found} == ids
    assert len(fake.asked(LIST)) == 3


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_a_page_that_breaks_off_makes_the_whole_unknown(fake: FakeE2B, skip: int) -> None:
    """Promise 6: a truncated list is an error, never a shorter list."""
    extension = E2BExtension()
    for _ in range(230):
        extension.provision(spec(), context(fake))
    fake.script.add(Fault(match=LIST, kind="truncate", skip=skip, times=None))
    with pytest.raises(SandboxerError):
        extension.inventory(context(fake, seconds=8))


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"{}",
        b'["i1"]',
        b'[{"metadata": {}}]',
        b'[{"sandboxID": "", "metadata": {}}]',
        b'[{"sandboxID": "i1", "metadata": 5}]',
        b"<html>",
    ],
)
def test_a_list_that_is_none_is_an_error(fake: FakeE2B, body: bytes) -> None:
    fake.script.add(Fault(match=LIST, kind="status", status=200, body=body, times=None))
    with pytest.raises(SandboxerError):
        E2BExtension().inventory(context(fake))
    with pytest.raises(SandboxerError):
        E2BExtension().find(spec().sandbox_id, context(fake))


def test_a_list_without_an_end_is_an_error(fake: FakeE2B) -> None:
    fake.script.add(
        Fault(match=LIST, kind="status", status=200, body=b"[]", headers={"x-next-token": "again"}, times=None)
    )
    with pytest.raises(SandboxerError, match="no end"):
        E2BExtension().inventory(context(fake))


def test_a_list_that_lags_behind_is_looked_at_twice(fake: FakeE2B) -> None:
    wanted = spec()
    extension = E2BExtension()
    extension.provision(wanted, context(fake))
    fake.script.add(Fault(match=LIST, kind="stale-list"))
    assert extension.find(wanted.sandbox_id, context(fake)) is not None


def test_a_row_that_a_stale_list_lacks_is_not_absent(fake: FakeE2B) -> None:
    """Only a look by id says that something is gone."""
    extension = E2BExtension()
    handle = made(fake, extension=extension)
    fake.script.add(Fault(match=LIST, kind="stale-list", times=None))
    assert extension.status(handle, context(fake)).presence == "running"


def test_a_failed_look_is_unknown(fake: FakeE2B) -> None:
    extension = E2BExtension()
    handle = made(fake, extension=extension)
    fake.script.add(Fault(match="GET /sandboxes/.*", kind="status", status=500, times=None))
    assert extension.status(handle, context(fake)).presence == "unknown"


def test_a_kill_that_is_not_carried_out_keeps_the_record(fake: FakeE2B) -> None:
    """Promise 5: E2B says 204, and the sandbox is still there."""
    extension = E2BExtension()
    handle = made(fake, extension=extension)
    fake.script.add(Fault(match="DELETE .*", kind="status", status=204, times=None))
    with pytest.raises(SandboxerError) as caught:
        extension.teardown(handle, context(fake))
    assert caught.value.outcome == "unknown"
    fake.script.clear()
    extension.teardown(handle, context(fake))
    assert list(fake.census()) == []


def test_a_teardown_after_a_lost_answer_takes_every_copy(fake: FakeE2B) -> None:
    """Promise 7: a request that arrived late has made a second one after the first was found."""
    fake.idempotent = False
    fake.script.add(Fault(match="POST /v2/sandboxes", kind="lost-answer"))
    wanted = spec()
    extension = E2BExtension()
    handle = extension.provision(wanted, context(fake))
    assert sandbox_data(handle).lost
    extension.provision(wanted, context(fake))  # the late one
    assert len(fake.census()) == 2
    extension.teardown(handle, context(fake))
    assert list(fake.census()) == []
