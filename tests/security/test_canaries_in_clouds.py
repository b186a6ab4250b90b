"""Promise 28, for the adapters of the clouds: their keys are found nowhere, whatever the provider answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fakes import Cloud, Fault
from tests.security.canaries import Watch
from tests.security.scenes import Scene

pytestmark = pytest.mark.xdist_group("canaries")  # each looks for canaries on the whole machine, and plants some


class Case(NamedTuple):
    """One cloud: its extension, the names of its credentials, its fake with such credentials, and the path of a create
    (with the statuses that its protocol has for what goes wrong)."""

    extension: str
    credentials: tuple[str, ...]
    fake: Callable[[Mapping[str, str]], Cloud]
    create: str
    statuses: tuple[int, ...]
    minted: Callable[[Any], Sequence[str]] = lambda _cloud: ()
    """Tokens that the provider made for a sandbox, and that belong into no record either."""


def _e2b(keys: Mapping[str, str]) -> Cloud:
    from tests.fakes.e2b import FakeE2B

    return FakeE2B(keys={keys["E2B_API_KEY"]: "account"})


def _daytona(keys: Mapping[str, str]) -> Cloud:
    from tests.fakes.daytona import FakeDaytona

    return FakeDaytona(keys={keys["DAYTONA_API_KEY"]: "organization"})


def _modal(keys: Mapping[str, str]) -> Cloud:
    from tests.fakes.modal import FakeModal

    return FakeModal(token_id=keys["MODAL_TOKEN_ID"], token_secret=keys["MODAL_TOKEN_SECRET"])


HTTP = (400, 401, 403, 404, 409, 429, 500, 503)
GRPC = (3, 5, 7, 8, 9, 13, 16)
"""Invalid argument, not found, permission denied, exhausted, failed precondition, internal, unauthenticated."""
CASES = {
    "e2b": Case("ext.e2b", ("E2B_API_KEY",), _e2b, "POST /v2/sandboxes", HTTP,
        lambda cloud: [cloud.estate.token(found) for found in cloud.estate.sandboxes]),
    "daytona": Case("ext.daytona", ("DAYTONA_API_KEY",), _daytona, "POST /api/sandbox", HTTP,
        lambda cloud: [machine.preview for machine in cloud.estate.machines.values()]),
    "modal": Case(
        "ext.modal", ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"), _modal,
        "POST /modal.client.ModalClient/SandboxCreate.*", GRPC,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_keys_of_a_cloud_are_found_nowhere(tmp_path: Path, name: str) -> None:
    """Promise 28: over the whole life of a sandbox, and with a provider that quotes the key in what it refuses; the
    logs of every library are on."""
    case = CASES[name]
    scene = Scene(tmp_path)
    keys = {variable: scene.canaries.new(variable, before="ak-") for variable in case.credentials}
    scene.write("config/config.yaml", f"hosts: {{local: {{work_dir: {tmp_path}/work}}}}\n")
    scene.write(
        "config/profiles/profile.cloud.yaml",
        f"id: profile.cloud\nversion: 1.0.0\nextension: {case.extension}\nttl: {{default: 1h, max: 4h}}\n"
        "pricing_model: metered\ninputs: {token: {type: string, secret: true}}\n",
    )
    with ExitStack() as ending:
        cloud = case.fake(keys).start()
        ending.callback(cloud.stop)
        watch = ending.enter_context(Watch(scene.canaries, own=[os.getpid()]))
        scene.set(**cloud.environment())
        scene.well("credits", "add", "100")
        sandbox = scene.well("create", "--profile", "profile.cloud", "--json").document["id"]
        for number, token in enumerate(case.minted(cloud)):
            scene.canaries.adopt(f"token {number} of the provider", token)
        scene.well("exec", sandbox, "--", "sh", "-c", "sleep 0.1; echo done")
        scene.write("home/file", "text")
        scene.well("cp", str(tmp_path / "home" / "file"), f"{sandbox}:file")
        for words in (("get", sandbox, "--json"), ("doctor", "--json"), ("reconcile", "--json"), ("logs", sandbox)):
            scene.run(*words, debug=True)
        codes = set()
        for status in case.statuses:
            said = f"you sent {' '.join(keys.values())}"
            body = {"code": status, "statusCode": status, "message": said, "error": said}
            cloud.script.add(Fault(match=case.create, kind="status", status=status, body=body, times=3))
            failed = scene.run("create", "--profile", "profile.cloud", "--timeout", "20s", debug=True)
            cloud.script.clear()
            codes.add(failed.status)
        assert len({fault.status for fault, _ in cloud.script.struck}) == len(case.statuses)
        assert not codes & {1, 6}
        assert len(codes - {0}) >= 2  # some are settled or tried again, and go well
        scene.well("destroy", sandbox, "--json")
        wrong = {variable: scene.canaries.new(f"wrong {variable}", before="ak-") for variable in case.credentials}
        scene.set(**wrong)
        refused = scene.run("create", "--profile", "profile.cloud", "--json", debug=True)
        assert refused.error["code"] == "denied"
        scene.set(**{case.credentials[-1]: f"{scene.canaries.new('line break')}\nx-injected: 1"})
        assert scene.run("create", "--profile", "profile.cloud", "--json", debug=True).status not in (0, 1)
        endpoint = next(variable for variable in cloud.environment() if variable.endswith("_URL"))
        scene.set(**keys, **{endpoint: f"http://user:{scene.canaries.new('address')}@127.0.0.1:9"})
        assert scene.run("create", "--profile", "profile.cloud", "--json", debug=True).error["code"] == "invalid"
        scene.run("doctor", "--json", debug=True)
        scene.run("list", "--all", "--json")
        scene.run("usage", "export", "--format", "json")
        assert cloud.creates >= 1
    assert scene.log.exists()
    assert "\n".join(scene.leaks()) == ""
    assert watch.found == {}
