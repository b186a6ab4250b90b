"""Settings that are wrong, or not those that a sandbox was made with, as the command and the API tell them."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path

import pytest

from tests.api.serving import called
from tests.cli.running import Command
from tests.installations import installed, lay_out

E2B = "profile.e2b-burst"
KEYS = {
    "E2B_API_KEY": "e2b_0123456789abcdef",
    "DAYTONA_API_KEY": "dtn_0123456789abcdef",
    "MODAL_TOKEN_ID": "ak-0123456789abcdef",
    "MODAL_TOKEN_SECRET": "as-0123456789abcdef",
}
BYTE = os.fsdecode(b"\xff")


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
    ],
    ids=lambda value: str(value).encode("ascii", "replace").decode(),
)
def test_a_key_that_cannot_be_sent_is_not_configured(tmp_path: Path, profile: str, wrong: dict[str, str]) -> None:
    ((variable, value),) = wrong.items()
    command = Command(tmp_path, more={**KEYS, **wrong})
    assert command("credits", "add", "50").status == 0
    refused = command("create", "--profile", profile, "--json")
    assert (refused.status, refused.error["code"], refused.error["outcome"]) == (6, "not_configured", "failed"), refused
    assert variable in refused.error["hint"]
    assert value not in refused.stdout + refused.stderr
    assert command("credits", "show", "--json").document["reserved_usd"] == "0"
