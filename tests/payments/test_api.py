"""Credits and usage over HTTP, and the relays of a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxer.bootstrap import Installation
from sandboxer.testing.hub import FakeHub
from tests.api.serving import called
from tests.docs.test_schemas import fits
from tests.installations import FAKE_MANIFEST, create, installed, lay_out
from tests.testbed.waiting import eventually

PRICES = 'pricing_model: metered\nprices: {as_of: "2026-11-01", source: made up, sandbox_hour: {usd: "36"}}\n'


def metered(root: Path, **environment: str) -> Installation:
    lay_out(root)
    (root / "config" / "extensions" / "ext.fake.yaml").write_text(FAKE_MANIFEST + PRICES)
    return installed(root, None, **environment)


def test_the_credits_and_the_usage_are_the_documents_of_the_command(tmp_path: Path) -> None:
    here = metered(tmp_path)
    here.manager.add_credits("100")
    record = here.manager.destroy(create(here).id)
    with called(here) as api:
        balance, usage = api.get("/v1/credits"), api.get("/v1/usage")
        assert (balance.status_code, usage.status_code) == (200, 200)
        fits("credits", balance.json())
        fits("usage", usage.json())
        assert balance.json()["spent_usd"] == record.cost.actual_usd
        assert [item["sandbox_id"] for item in usage.json()["usage"]] == [record.id]
        assert api.get("/v1/usage", params={"since": "2101-01-01"}).json() == {"usage": []}
        paths = api.get("/openapi.json").json()["paths"]
        assert {"/v1/credits", "/v1/usage"} <= set(paths)


@pytest.mark.parametrize("when", ["yesterday", "x" * 81, "-1", "2027-13-01", "\x00"])
def test_a_bound_that_is_no_time_is_422(tmp_path: Path, when: str) -> None:
    with called(metered(tmp_path)) as api:
        refused = api.get("/v1/usage", params={"since": when})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid")


def test_a_balance_that_is_too_low_is_402(tmp_path: Path) -> None:
    with called(metered(tmp_path)) as api:
        refused = api.post("/v1/sandboxes", json={"profile": "profile.fake"})
        assert (refused.status_code, refused.json()["code"]) == (402, "insufficient_credits")


def test_a_server_sends_to_fin_hub_while_the_state_hub_is_dead(tmp_path: Path) -> None:
    """Promise 21."""
    with FakeHub(path="/usage") as fin:
        here = metered(tmp_path, SANDBOXER_STATE_HUB_URL="http://127.0.0.1:9", SANDBOXER_FIN_HUB_URL=fin.url + "/usage")
        here.manager.add_credits("100")
        with called(here) as api:
            made = api.post("/v1/sandboxes?wait=true", json={"profile": "profile.fake"}).json()
            assert api.delete(f"/v1/sandboxes/{made['id']}?wait=true").status_code == 200
            eventually(lambda: len(fin.arrivals) == 1, within=30, what="the usage record")
        assert fin.arrivals[0].event["sandbox_id"] == made["id"]
