"""Bad input never breaks the API (promise 30)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from httpx import Client

from sandboxer.api.responses import json_response
from sandboxer.api.routes import health
from sandboxer.bootstrap import Installation
from tests.api.fuzzing import Harmless, Request, fuzz
from tests.api.serving import serving
from tests.installations import create, installed
from tests.sizes import scaled


@contextmanager
def target(root: Path) -> Iterator[tuple[str, Callable[[Request, int], None], Installation]]:
    """A server over the fake, and what bends requests so that they hit living sandboxes and real profiles."""
    here = installed(root)
    here.manager.services.extensions.add("ext.fake", Harmless)

    def aim(case: Request, number: int) -> None:
        if isinstance(case.body, dict) and number % 4 and case.path == "/v1/sandboxes":
            case.body["profile"] = "profile.fake"
        if isinstance(case.path_parameters, dict) and "id" in case.path_parameters and number % 3:
            living = here.manager.list()
            case.path_parameters["id"] = living[number % len(living)].id if living else create(here).id
        if isinstance(case.path_parameters, dict) and "lease" in case.path_parameters and number % 3:
            held = here.manager.grant_lease(case.path_parameters["id"], holder="fuzz", seconds=60)
            case.path_parameters["lease"] = held.lease_id
        if isinstance(case.path_parameters, dict) and "host" in case.path_parameters and number % 3:
            case.path_parameters["host"] = "local"

    with serving(here) as served:
        yield f"http://127.0.0.1:{served.port}", aim, here


@pytest.mark.timeout(scaled(180, soak=7200))
def test_no_request_breaks_the_api(tmp_path: Path) -> None:
    with target(tmp_path) as (url, aim, here):
        sent = fuzz(url, examples=scaled(15, soak=300), aim=aim, rounds=scaled(1, soak=2))
        assert sent >= scaled(300, soak=10_000)
        assert here.manager.list(ended=True), "some requests must have hit"
        with Client(base_url=url, timeout=30) as api:
            assert api.get("/readyz").status_code == 200


@pytest.mark.parametrize("fault", ["it raises", "it answers what it does not say"])
def test_the_fuzzer_sees_a_planted_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """A harness that has not been seen to fail proves nothing."""

    async def broken() -> object:
        if fault == "it raises":
            raise ZeroDivisionError
        return json_response({"status": 7})

    [route] = [route for route in health.router.routes if getattr(route, "path", None) == "/healthz"]
    monkeypatch.setattr(route, "endpoint", broken)
    monkeypatch.setattr(route.dependant, "call", broken)  # type: ignore[attr-defined]  # a route of FastAPI has it
    with target(tmp_path) as (url, aim, _here), pytest.raises(BaseException) as seen:
        fuzz(url, examples=2, aim=aim)
    assert "healthz" in str(seen.value) or "status" in str(seen.value)
