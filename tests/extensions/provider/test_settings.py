"""Settings that are wrong, or not those that a sandbox was made with, as the command and the API tell them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.api.serving import called
from tests.cli.running import Command
from tests.fakes import Fault
from tests.fakes.e2b import FakeE2B
from tests.installations import installed, lay_out

E2B = "profile.e2b-burst"
KEYS = {
    "E2B_API_KEY": "e2b_0123456789abcdef",
    "DAYTONA_API_KEY": "dtn_0123456789abcdef",
    "MODAL_TOKEN_ID": "ak-0123456789abcdef",
    "MODAL_TOKEN_SECRET": "as-0123456789abcdef",
}
BYTE = os.fsdecode(b"\xff")


@pytest.fixture
def deaf() -> Iterator[FakeE2B]:
    """An E2B whose answers to creates are lost, and that does not let anybody look."""
    with FakeE2B() as cloud:
        cloud.script.add(Fault(match="POST (/v2)?/sandboxes", kind="lost-answer", times=None))
        cloud.script.add(Fault(match="GET .*", kind="status", status=503, times=None))
        yield cloud


@pytest.fixture
def other() -> Iterator[FakeE2B]:
    """An E2B at another address, which takes the same key."""
    with FakeE2B() as cloud:
        yield cloud


def lost(command: Command, deaf: FakeE2B) -> str:
    """A sandbox whose create was not answered; its id."""
    made = command("create", "--profile", E2B, "--timeout", "5s", "--json")
    assert (made.status != 0, made.error["outcome"]) == (True, "unknown"), made
    assert len(deaf.census()) == 1
    name: str = made.error["sandbox_id"]
    return name


def test_a_lost_create_is_not_dropped_at_another_address(tmp_path: Path, deaf: FakeE2B, other: FakeE2B) -> None:
    """Promise 5: only the server that it was asked of can say that there is none."""
    command = Command(tmp_path, more=deaf.environment())
    assert command("credits", "add", "5").status == 0
    name = lost(command, deaf)
    elsewhere = Command(tmp_path, more=other.environment())
    refused = elsewhere("destroy", name, "--force", "--json")
    assert (refused.status, refused.error["outcome"]) == (6, "unknown"), refused
    assert f"was made at {deaf.url}" in refused.error["message"]
    assert f"E2B_API_URL={deaf.url}" in refused.error["hint"]
    swept = elsewhere("reconcile", "--apply", "--json")
    assert swept.status != 0
    assert command("get", name, "--json").document["state"] != "destroyed"
    with called(installed(tmp_path, None, **other.environment())) as api:
        over_http = api.delete(f"/v1/sandboxes/{name}?wait=true")
        assert over_http.status_code == 424, over_http.text
        assert f"was made at {deaf.url}" in over_http.text
    assert len(deaf.census()) == 1
    deaf.script.clear()
    assert command("destroy", name, "--force").status == 0
    assert list(deaf.census()) == []


def test_a_lost_create_is_not_dropped_for_another_accounts_key(tmp_path: Path) -> None:
    """Promise 5."""
    ours, theirs = "e2b_ours", "e2b_of_somebody_else"
    with FakeE2B(keys={ours: "us", theirs: "them"}) as fake:
        fake.script.add(Fault(match="POST (/v2)?/sandboxes", kind="lost-answer", times=None))
        fake.script.add(Fault(match="GET .*", kind="status", status=503, times=None))
        command = Command(tmp_path, more={**fake.environment(), "E2B_API_KEY": ours})
        assert command("credits", "add", "5").status == 0
        name = lost(command, fake)
        fake.script.clear()
        refused = command("destroy", name, "--force", "--json", E2B_API_KEY=theirs)
        assert (refused.status, refused.error["outcome"]) == (7, "unknown"), refused
        assert "E2B_API_KEY" in refused.error["hint"]
        assert len(fake.census()) == 1
        assert command("reconcile", "--apply", "--json").status == 0
        assert list(fake.census()) == []


UNUSABLE = [
    ("profile.e2b-burst", {"E2B_API_URL": "junk"}),
    ("profile.e2b-burst", {"E2B_DOMAIN": BYTE}),
    ("profile.daytona-dev", {"DAYTONA_API_URL": f"http://{BYTE}/"}),
    ("profile.daytona-dev", {"DAYTONA_SERVER_URL": "junk"}),
    ("profile.modal-gpu", {"MODAL_SERVER_URL": f"http://{BYTE}/"}),
]


@pytest.mark.parametrize(
    ("profile", "wrong"), UNUSABLE, ids=lambda value: str(value).encode("ascii", "replace").decode()
)
def test_an_address_that_is_none_makes_nothing_and_leaves_nothing(
    tmp_path: Path, profile: str, wrong: dict[str, str]
) -> None:
    """Promise 19: nothing was asked for, so nothing may exist, and no credits stay reserved."""
    (variable,) = wrong
    command = Command(tmp_path, more={**KEYS, **wrong})
    assert command("credits", "add", "50").status == 0
    refused = command("create", "--profile", profile, "--json")
    assert (refused.status, refused.error["code"], refused.error["outcome"]) == (2, "invalid", "failed"), refused
    assert variable in refused.error["message"]
    assert command("credits", "show", "--json").document["reserved_usd"] == "0"
    assert command("destroy", refused.error["sandbox_id"], "--json").status == 0


def test_an_address_that_is_none_is_told_over_http_too(tmp_path: Path) -> None:
    lay_out(tmp_path)
    here = installed(tmp_path, None, **KEYS, E2B_API_URL="junk")
    here.manager.services.credits.add(Decimal(50))
    with called(here) as api:
        made = api.post("/v1/sandboxes?wait=true", json={"profile": E2B})
        assert made.status_code == 422, made.text
        error = made.json()
        assert (error["code"], error["outcome"]) == ("invalid", "failed")
        assert api.delete(f"/v1/sandboxes/{error['sandbox_id']}?wait=true").status_code == 200


@pytest.mark.parametrize(
    ("profile", "wrong"),
    [
        ("profile.e2b-burst", {"E2B_API_KEY": BYTE}),
        ("profile.e2b-burst", {"E2B_API_KEY": "e2b_\xe9"}),
        ("profile.daytona-dev", {"DAYTONA_API_KEY": f"{BYTE}abc"}),
        ("profile.modal-gpu", {"MODAL_TOKEN_ID": BYTE}),
        ("profile.modal-gpu", {"MODAL_TOKEN_SECRET": f"as-{BYTE}"}),
        ("profile.modal-gpu", {"MODAL_ENVIRONMENT": BYTE}),
        ("profile.daytona-dev", {"DAYTONA_TARGET": BYTE}),
    ],
    ids=lambda value: str(value).encode("ascii", "replace").decode(),
)
def test_a_key_or_a_name_that_cannot_be_sent_is_not_configured(
    tmp_path: Path, profile: str, wrong: dict[str, str]
) -> None:
    ((variable, value),) = wrong.items()
    command = Command(tmp_path, more={**KEYS, **wrong})
    assert command("credits", "add", "50").status == 0
    refused = command("create", "--profile", profile, "--json")
    assert (refused.status, refused.error["code"], refused.error["outcome"]) == (6, "not_configured", "failed"), refused
    assert variable in refused.error["hint"] + refused.error["message"]
    assert value not in refused.stdout + refused.stderr
    assert command("credits", "show", "--json").document["reserved_usd"] == "0"
