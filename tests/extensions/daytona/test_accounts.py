"""Other keys, other addresses, and listings that cannot be trusted."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sandboxer.errors import BackendError, Denied, NotConfigured, SandboxerError
from sandboxer.extensions.daytona import DaytonaExtension
from sandboxer.extensions.daytona.client import page, trusted
from sandboxer.extensions.daytona.handle import LATE_SECONDS, DaytonaHandleData, proves_absence
from sandboxer.http import parse_base_url
from tests.extensions.daytona.harness import context, endpoints, made, run, spec
from tests.fakes import Fault
from tests.fakes.daytona import KEY, FakeDaytona

OTHER = "dtn_of_another_organization"


def test_another_organizations_key_sees_nothing_and_that_proves_nothing() -> None:
    """Promise 5: "not found" with a key that could not see it is `unknown`, until Daytona's own timer has ended it."""
    with FakeDaytona(keys={KEY: "one", OTHER: "two"}) as fake:
        handle = made(fake, ttl=60)
        extension, foreign = DaytonaExtension(), context(fake, key=OTHER)
        assert extension.status(handle, foreign).presence == "unknown"
        with pytest.raises(BackendError) as caught:
            extension.teardown(handle, foreign)
        assert caught.value.outcome == "unknown"
        assert "DAYTONA_API_KEY" in caught.value.hint
        assert len(fake.census()) == 1
        extension.teardown(handle, context(fake))
        assert extension.status(handle, context(fake)).presence == "absent"


def test_another_key_of_the_same_organization_is_as_good() -> None:
    with FakeDaytona(keys={KEY: "one", OTHER: "one"}) as fake:
        handle = made(fake)
        assert run_with(fake, handle, OTHER) == "running"
        with pytest.raises(BackendError):
            DaytonaExtension().teardown(handle, context(fake, key=OTHER))
        assert fake.census() == [], "it is gone; only that could not be proved"


def run_with(fake: FakeDaytona, handle: object, key: str) -> str:
    return DaytonaExtension().status(handle, context(fake, key=key)).presence  # type: ignore[arg-type]


def test_absence_is_proved_by_the_same_key_or_by_the_end_of_the_ttl() -> None:
    data = DaytonaHandleData(name="sbx-x", base="https://a", key="11111111", until=1000.0)
    assert proves_absence(data, "11111111", now=0)
    assert not proves_absence(data, "22222222", now=1000 + LATE_SECONDS)
    assert proves_absence(data, "22222222", now=1001 + LATE_SECONDS)
    never = DaytonaHandleData(name="sbx-x", base="https://a", key="11111111")
    assert not proves_absence(never, "22222222", now=1e12)


def test_a_sandbox_of_another_address_is_not_looked_for_at_this_one() -> None:
    """Promise 5."""
    with FakeDaytona() as first, FakeDaytona() as second:
        handle = made(first)
        extension, moved = DaytonaExtension(), context(second)
        found = extension.status(handle, moved)
        assert (found.presence, first.url in found.detail) == ("unknown", True)
        with pytest.raises(NotConfigured, match=f"{first.url}/api") as caught:
            extension.teardown(handle, moved)
        assert f"DAYTONA_API_URL={first.url}/api" in caught.value.hint
        assert second.requests == type(second.requests)(maxlen=second.requests.maxlen), "nothing was asked there"
        extension.teardown(handle, context(first))


def test_a_key_never_goes_to_a_toolbox_of_somebody_else(daytona_cloud: FakeDaytona) -> None:
    """Promise 28: the API's answer alone does not decide where the key goes."""
    daytona_cloud.say_toolbox("http://203.0.113.9:9/toolbox")
    handle = DaytonaExtension().provision(spec(), context(daytona_cloud))
    with pytest.raises(Denied) as caught:
        DaytonaExtension().wait_ready(handle, context(daytona_cloud))
    assert "DAYTONA_TOOLBOX_URL=http://203.0.113.9:9/toolbox" in caught.value.hint
    chosen = endpoints(daytona_cloud) | {"toolbox": f"{daytona_cloud.url}/toolbox"}
    DaytonaExtension().wait_ready(handle, context(daytona_cloud, endpoints=chosen))
    DaytonaExtension().teardown(handle, context(daytona_cloud))


@pytest.mark.parametrize(
    ("api", "toolbox", "good"),
    [
        ("https://app.daytona.io/api", "https://proxy.app.daytona.io/toolbox", True),
        ("https://app.daytona.io/api", "https://proxy.eu.daytona.io/toolbox", True),
        ("https://app.daytona.io/api", "https://app.daytona.io:4000/toolbox", True),
        ("https://app.daytona.io/api", "http://proxy.app.daytona.io/toolbox", False),
        ("https://app.daytona.io/api", "https://daytona.io.evil.example/toolbox", False),
        ("https://app.daytona.io/api", "https://evildaytona.io/toolbox", False),
        ("https://app.daytona.io/api", "https://192.0.2.1/toolbox", False),
        ("https://example.com/api", "https://other.com/toolbox", False),
        ("https://daytona/api", "https://proxy.daytona/toolbox", False),
        ("http://192.0.2.1:3000/api", "http://192.0.2.1:4000/toolbox", True),
        ("http://192.0.2.1:3000/api", "http://192.0.2.2:4000/toolbox", False),
        ("http://localhost:3000/api", "http://127.0.0.1:4000/toolbox", True),
        ("http://127.0.0.1:3000/api", "http://192.0.2.1:4000/toolbox", False),
    ],
)
def test_which_toolboxes_belong_to_an_api(api: str, toolbox: str, good: bool) -> None:
    assert trusted(parse_base_url(api, what="a"), parse_base_url(toolbox, what="b")) is good


@pytest.fixture
def small_pages() -> Iterator[FakeDaytona]:
    """A Daytona that gives two sandboxes a page."""
    with FakeDaytona(page=2) as fake:
        yield fake


def test_a_listing_is_complete_over_many_pages(small_pages: FakeDaytona) -> None:
    handles = [DaytonaExtension().provision(spec(), context(small_pages)) for _ in range(5)]
    found = DaytonaExtension().inventory(context(small_pages))
    assert {one.handle.data["id"] for one in found} == {handle.data["id"] for handle in handles}
    assert len(small_pages.asked("GET /api/sandbox")) == 3


@pytest.mark.parametrize(
    "fault",
    [
        Fault(match="GET /api/sandbox", kind="truncate", skip=1, times=None),
        Fault(match="GET /api/sandbox", kind="drop", skip=1, times=None),
        Fault(match="GET /api/sandbox", kind="status", status=500, skip=1, times=None),
        Fault(match="GET /api/sandbox", kind="status", status=200, body={"items": []}, skip=1, times=None),
        Fault(match="GET /api/sandbox", kind="status", status=200, body=b"<html>", skip=1, times=None),
        Fault(match="GET /api/sandbox", kind="status", status=200, body={"items": [{}], "nextCursor": None}, skip=1),
        Fault(
            match="GET /api/sandbox",
            kind="status",
            status=200,
            body={"items": [], "nextCursor": base64.b64encode(b"2").decode()},
            skip=1,
            times=None,
        ),
    ],
    ids=["truncated", "dropped", "500", "no cursor", "no JSON", "no sandbox", "a cursor that turns in circles"],
)
def test_a_listing_that_does_not_come_to_its_end_is_none(small_pages: FakeDaytona, fault: Fault) -> None:
    """Promise 6: a failed or truncated listing raises, it is never a shorter one."""
    for _ in range(3):
        DaytonaExtension().provision(spec(), context(small_pages))
    small_pages.script.add(fault)
    with pytest.raises(SandboxerError):
        DaytonaExtension().inventory(context(small_pages, seconds=2))


def test_a_listing_that_lags_does_not_make_a_sandbox_absent(daytona_cloud: FakeDaytona) -> None:
    """Promise 6: presence is asked for by name, which the index has no part in."""
    handle = made(daytona_cloud)
    daytona_cloud.script.add(Fault(match="GET /api/sandbox", kind="stale-list", times=None))
    assert DaytonaExtension().inventory(context(daytona_cloud)) == []
    assert DaytonaExtension().status(handle, context(daytona_cloud)).presence == "running"
    DaytonaExtension().teardown(handle, context(daytona_cloud))
    stale = DaytonaExtension().inventory(context(daytona_cloud))
    assert all(DaytonaExtension().status(one.handle, context(daytona_cloud)).presence == "absent" for one in stale)


def test_pages_of_older_and_newer_servers() -> None:
    assert page([1, 2]) == ([1, 2], None)
    assert page({"items": [1], "nextCursor": "x"}) == ([1], "x")
    assert page({"items": [], "nextCursor": None, "total": 0}) == ([], None)
    broken: list[Any] = [
        {},
        {"items": [1]},
        {"items": {}, "nextCursor": None},
        None,
        "x",
        {"items": [], "nextCursor": 4},
    ]
    for wrong in broken:
        with pytest.raises(BackendError):
            page(wrong)


def test_a_renewal_is_kept_by_daytonas_own_timer(daytona_cloud: FakeDaytona) -> None:
    """Promise 16: a renewal that was answered holds."""
    handle = made(daytona_cloud, ttl=120)
    DaytonaExtension().renew(handle, time.time() + 1200, context(daytona_cloud))
    daytona_cloud.forward(1100)
    assert DaytonaExtension().status(handle, context(daytona_cloud)).presence == "running"
    assert run(daytona_cloud, handle, "true")[0] == 0
    daytona_cloud.forward(200)
    assert DaytonaExtension().status(handle, context(daytona_cloud)).presence == "absent"


def test_a_renewal_of_what_is_gone_is_not_answered(daytona_cloud: FakeDaytona) -> None:
    handle = made(daytona_cloud)
    DaytonaExtension().teardown(handle, context(daytona_cloud))
    with pytest.raises(SandboxerError):
        DaytonaExtension().renew(handle, time.time() + 60, context(daytona_cloud))
