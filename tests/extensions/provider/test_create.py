"""Creates at every cloud: pages of HTML in its place, accounts that may not, and variables that name another server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sandboxer.errors import BackendError, Denied, Invalid, NotConfigured, SandboxerError, Unavailable
from sandboxer.extensions.daytona.client import DaytonaClient
from sandboxer.extensions.daytona.errors import api_error as daytona_error
from sandboxer.extensions.e2b.client import E2BClient
from sandboxer.extensions.e2b.envd import address_of
from sandboxer.extensions.e2b.errors import api_error as e2b_error
from sandboxer.extensions.e2b.errors import envd_error
from sandboxer.extensions.e2b.handle import E2BHandleData
from sandboxer.extensions.e2b.sandbox import EnvdAccess
from sandboxer.extensions.modal.errors import translated
from sandboxer.extensions.provider.errors import reason
from sandboxer.http import Response
from sandboxer.models import Manifest
from sandboxer.secrets import Secret
from tests.extensions.calls import asking
from tests.extensions.provider.trial import Trial
from tests.fakes import Fault

PAGE = b"""<!DOCTYPE html>
<html><head><title>502 Bad Gateway</title></head><body bgcolor="white"><h1>502 Bad Gateway</h1>
<hr>nginx/1.18</body></html>"""


def html(match: str, *, status: int = 502, kind: str = "text/html; charset=utf-8", **more: Any) -> Fault:
    return Fault(match=match, kind="status", status=status, body=PAGE, headers={"content-type": kind}, **more)


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_page_of_html_for_ever_is_not_printed(trial: Trial, kind: str) -> None:
    trial.plan(html(trial.create, kind=kind, times=None))
    with pytest.raises(SandboxerError) as caught:
        trial.extension.provision(trial.spec(), trial.context())
    said = f"{caught.value.message} {caught.value.hint} {msgspec.json.encode(caught.value.document()).decode()}"
    assert "<" not in said
    assert "nginx" not in said
    assert trial.fake.census() == []
    assert trial.extension.find(trial.spec().sandbox_id, trial.context()) is None


def test_where_the_name_proves_that_nothing_was_made_the_create_has_failed(trial: Trial) -> None:
    if trial.name == "e2b":
        pytest.skip("its lists may lag: the core looks twice (find)")
    trial.plan(html(trial.create, times=None))
    with pytest.raises(SandboxerError) as caught:
        trial.extension.provision(trial.spec(), trial.context())
    assert (caught.value.outcome, caught.value.outcome_stated, caught.value.made_nothing) == ("failed", True, True)


def answer(status: int, body: Any, *, asked: str = "POST /v2/sandboxes", kind: str = "application/json") -> Response:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Response(name="E2B", asked=asked, status=status, headers={"content-type": kind}, body=raw)


@pytest.mark.parametrize("make", [e2b_error, envd_error, daytona_error])
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 429, 500, 502, 503, 504, 520])
@pytest.mark.parametrize("body", [PAGE, {"code": 1, "message": f"upstream said {PAGE.decode()}"}], ids=["page", "json"])
def test_no_error_of_a_status_prints_html(make: Any, status: int, body: Any) -> None:
    for kind in ("text/html", "application/json"):
        error = make(answer(status, body, kind=kind))
        assert "<" not in error.message
        assert "nginx" not in error.message


@pytest.mark.parametrize(
    ("status", "words", "why"),
    [
        (402, "", "billing"),
        (402, "Payment Required", "billing"),
        (403, "Organization is suspended: Depleted credits", "billing"),
        (403, "Team is blocked: missing payment method", "billing"),
        (403, "You have reached your team's quota of sandboxes", "quota"),
        (403, "Sandbox limit exceeded. See https://e2b.dev/docs/billing", "quota"),
        (403, "Maximum number of concurrent sandboxes reached", "quota"),
        (400, "No available runners", "capacity"),
        (403, "invalid credentials", None),
        (403, "the key may not do that", None),
    ],
)
def test_why_an_account_is_refused(status: int, words: str, why: str | None) -> None:
    assert reason(status, words) == why


@pytest.mark.parametrize("make", [e2b_error, daytona_error])
def test_a_quota_is_told_as_one_and_an_unpaid_account_as_one(make: Any) -> None:
    quota = make(answer(403, {"code": 403, "message": "You have reached your team's quota"}))
    assert (type(quota), quota.retryable, quota.outcome) == (BackendError, True, "failed")
    assert (quota.details["reason"], "quota" in quota.hint) == ("quota", True)
    for refused in (answer(402, {"code": 402, "message": "Payment Required"}), answer(402, b"")):
        unpaid = make(refused)
        assert (type(unpaid), unpaid.details["reason"], "billing" in unpaid.hint) == (Denied, "billing", True)
    assert "KEY" in make(answer(403, {"code": 403, "message": "no"})).hint


def test_modal_tells_them_too() -> None:
    modal = pytest.importorskip("modal")

    def told(error: Exception) -> SandboxerError:
        known = translated(error, "creating a sandbox")
        assert known is not None
        return known

    unpaid = told(modal.exception.PermissionDeniedError("the workspace is suspended: unpaid invoice"))
    assert (type(unpaid), (unpaid.details or {})["reason"]) == (Denied, "billing")
    spent = told(modal.exception.ResourceExhaustedError("workspace spend limit reached"))
    assert (type(spent), (spent.details or {})["reason"]) == (Denied, "billing")
    quota = told(modal.exception.ResourceExhaustedError("limit of 100 sandboxes"))
    assert (type(quota), (quota.details or {})["reason"]) == (BackendError, "quota")
    page = told(modal.exception.ServiceError(f"unexpected answer {PAGE.decode()}"))
    assert "<" not in page.message


def test_no_capacity_is_not_told_as_a_quota() -> None:
    assert isinstance(daytona_error(answer(400, {"message": "No available runners"})), Unavailable)
    assert isinstance(e2b_error(answer(403, {"code": 403, "message": "no capacity in the region"})), Unavailable)


# -- which server the key goes to -------------------------------------------------------------------------------------


def context(**endpoints: str) -> Any:
    keys = {"E2B_API_KEY": Secret("e2b_x"), "DAYTONA_API_KEY": Secret("dtn_x")}
    return asking(install="install", endpoints=endpoints, secrets=keys)


@pytest.mark.parametrize(
    ("endpoints", "base"),
    [
        ({}, "https://api.e2b.app"),
        ({"domain": "corp.example"}, "https://api.corp.example"),
        ({"api": "https://gate.example", "domain": "corp.example"}, "https://gate.example"),
        ({"debug": "false"}, "https://api.e2b.app"),
        ({"debug": "true", "api": "http://localhost:3000", "sandbox": "http://localhost:1"}, "http://localhost:3000"),
    ],
)
def test_e2b_is_where_its_own_clients_would_find_it(endpoints: dict[str, str], base: str) -> None:
    assert E2BClient(context(**endpoints)).base == base


@pytest.mark.parametrize("endpoints", [{"debug": "true"}, {"debug": "TRUE", "api": "http://localhost:3000"}])
def test_e2b_in_debug_is_refused_with_what_to_set(endpoints: dict[str, str]) -> None:
    with pytest.raises(NotConfigured) as caught:
        E2BClient(context(**endpoints))
    assert "E2B_DEBUG" in caught.value.hint


@pytest.mark.parametrize("domain", ["corp.example/x", "user@corp.example", "https://corp.example", "corp example", "?"])
def test_what_is_no_domain_is_refused(domain: str) -> None:
    with pytest.raises(Invalid, match="E2B_DOMAIN"):
        E2BClient(context(domain=domain))


def test_sandboxes_of_e2b_are_below_the_domain_that_was_chosen() -> None:
    place = E2BHandleData(sandbox_id="s", id="i1", api="https://gate.example", key="k", born=0)
    told, silent = EnvdAccess(envd=(0, 6, 0), domain="told.example"), EnvdAccess(envd=(0, 6, 0))
    assert address_of(place, silent, {"domain": "corp.example"}) == "https://49983-i1.corp.example"
    assert address_of(place, told, {"domain": "corp.example"}) == "https://49983-i1.told.example"
    assert address_of(place, silent, {"domain": "x", "sandbox": "https://one"}) == "https://one"
    with pytest.raises(NotConfigured, match="does not tell"):
        address_of(place, silent, {})


@pytest.mark.parametrize(
    ("endpoints", "base"),
    [
        ({}, "https://app.daytona.io/api"),
        ({"server": "https://old.example/api"}, "https://old.example/api"),
        ({"server": "https://old.example/api", "api": "https://new.example/api"}, "https://new.example/api"),
    ],
)
def test_daytona_is_where_its_own_client_would_find_it(endpoints: dict[str, str], base: str) -> None:
    assert DaytonaClient(context(**endpoints)).base == base


@pytest.mark.parametrize(
    ("target", "option", "asked"), [("eu", None, "eu"), ("eu", "us", "us"), (None, None, None), (None, "us", "us")]
)
def test_daytonas_region_is_the_options_else_the_variables(
    target: str | None, option: str | None, asked: str | None
) -> None:
    from tests.extensions.daytona import harness
    from tests.fakes.daytona import FakeDaytona

    with FakeDaytona() as fake:
        endpoints = {**harness.endpoints(fake), **({"target": target} if target else {})}
        wanted = harness.spec(options={"target": option} if option else {})
        from sandboxer.extensions.daytona import DaytonaExtension

        DaytonaExtension().provision(wanted, harness.context(fake, endpoints=endpoints))
        (create,) = fake.asked("POST /api/sandbox")
        assert msgspec.json.decode(create.body).get("target") == asked


def test_a_region_that_is_none_is_refused_before_anything_is_asked() -> None:
    from sandboxer.extensions.daytona import DaytonaExtension
    from tests.extensions.daytona import harness
    from tests.fakes.daytona import FakeDaytona

    with FakeDaytona() as fake:
        endpoints = {**harness.endpoints(fake), "target": "e u"}
        with pytest.raises(NotConfigured, match="DAYTONA_TARGET"):
            DaytonaExtension().provision(harness.spec(), harness.context(fake, endpoints=endpoints))
        assert fake.asked("POST /api/sandbox") == []


VARIABLES = {
    "ext.e2b": {"E2B_API_URL", "E2B_DOMAIN", "E2B_SANDBOX_URL", "E2B_DEBUG"},
    "ext.daytona": {"DAYTONA_API_URL", "DAYTONA_SERVER_URL", "DAYTONA_TARGET", "DAYTONA_TOOLBOX_URL"},
    "ext.modal": {"MODAL_SERVER_URL", "MODAL_ENVIRONMENT"},
}


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_that_leads_somewhere_reaches_the_adapter(name: str) -> None:
    import yaml

    from tests.docs.pages import ROOT

    with open(ROOT / "extensions" / f"{name}.yaml") as file:
        manifest = msgspec.convert(yaml.safe_load(file), Manifest)
    assert {endpoint.variable for endpoint in manifest.endpoints.values()} == VARIABLES[name]
