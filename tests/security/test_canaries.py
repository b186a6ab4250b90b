"""Promise 28: secrets never leak. Canary values go in through every channel at once, everything is done that can be
done, and then they are looked for: in outputs, files, logs of every library, and the command lines of what ran."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.running import Answer
from tests.fakes.server import FakeServer, Reply, Request
from tests.security.canaries import Canaries, Watch
from tests.security.echo import ECHOED, EchoServer
from tests.security.scenes import MANIFEST, Scene, profiles, small, yaml_secrets
from tests.testbed.openbao import OpenBao
from tests.testbed.waiting import eventually

pytestmark = pytest.mark.xdist_group("canaries")  # each looks for canaries on the whole machine, and plants some

KINDS = ("env", "file", "openbao", "cmd")
PLACES = ("manifest", "config", "profile", "other")
"""Where a reference stands: the last are secrets of a profile that the extension does not know."""


class Hub(FakeServer):
    """A neighbour that quotes what it was sent, and takes every second event."""

    def __init__(self) -> None:
        super().__init__()
        self.route("POST", "/.*", self._take)

    def _take(self, request: Request) -> Reply:
        refuse = len(self.requests) % 2 == 1
        return Reply(status=422 if refuse else 200, json={"error": f"you sent {dict(request.headers)}"})


@contextmanager
def full(root: Path, bao: OpenBao) -> Iterator[tuple[Scene, EchoServer, Hub]]:
    """A scene with canaries in every channel that can hold one while everything works."""
    with EchoServer() as echo, Hub() as hub:
        scene = Scene(root)
        new = scene.canaries.new
        by_place = {
            place: {f"{place}_{kind}".upper(): scene.reference(kind, f"key.{place}.{kind}", bao) for kind in KINDS}
            for place in PLACES
        }
        odd = new("key.odd", before="p%\"'\\ +/é")
        long = new("key.long", after="x" * 2000)
        by_place["manifest"] |= {
            "ODD": scene.reference("file", "key.odd", bao, value=odd),
            "LONG": scene.reference("openbao", "key.long", bao, value=long),
        }
        unset = {name: "env:UNSET" for place in ("config", "profile") for name in by_place[place]}
        scene.write("config/extensions/ext.echo.yaml", MANIFEST + yaml_secrets(by_place["manifest"] | unset, indent=2))
        profiles(scene, by_place["profile"] | by_place["other"])
        token = new("openbao.token")
        bao.admin.auth.token.create(id=token, policies=["ci"], ttl="1h")
        config = (
            f"hosts: {{local: {{work_dir: {root}/work}}}}\n"
            f"state_hub: {{url: {hub.url}, token: {new('state_hub.token')}}}\n"
            f"fin_hub: {{url: {hub.url}/usage, token: {new('fin_hub.token')}}}\n"
            f"api: {{token: {new('api.token')}}}\n"
            f"openbao: {{address: {bao.address}, token: 'file:~/bao-token'}}\n"
            "extensions:\n  ext.echo:\n    secrets:\n"
        )
        scene.plant("home/bao-token", token)
        scene.plant("config/config.yaml", config + yaml_secrets(by_place["config"], indent=6))
        scene.set(ECHO_API_URL=echo.url, HTTPS_PROXY=f"http://user:{new('proxy.password')}@127.0.0.1:9")
        yield scene, echo, hub


def do_everything(scene: Scene) -> None:
    """Every command that there is, in the ways in which it may meet a secret."""
    echo = ("--profile", "profile.echo-well")
    scene.well("credits", "add", "100")
    scene.run("doctor")
    scene.run("doctor", "--json")
    for words in (
        ("extensions", "list", "--json"), ("extensions", "show", "ext.echo", "--json"), ("profiles", "list"),
        ("profiles", "show", "profile.echo-well", "--json"), ("profiles", "validate"),
        ("route", "explain", *echo, "--json"), ("create", *echo, "--dry-run", "--json"),
    ):  # fmt: skip
        scene.well(*words)
    sandbox = scene.well("create", *echo, "--json").document["id"]
    scene.well("exec", sandbox, "--", "sh", "-c", "sleep 0.1")
    scene.well("get", sandbox, "--json")
    scene.well("extend-ttl", sandbox, "--duration", "1h")
    scene.run("logs", sandbox)
    for mode in ECHOED:
        for more in ((), ("--json",)):
            failed = scene.run("create", "--profile", f"profile.echo-{mode}", *more, debug=True)
            assert failed.status not in (0, 6), (mode, failed)
    background = scene.well("create", *echo, "--no-wait", "--json").document["id"]
    eventually(
        lambda: scene.run("get", background, "--json").document["state"] == "ready",
        within=30, what="the sandbox in the background is ready",
    )  # fmt: skip
    for words in (
        ("list", "--all", "--json"), ("reconcile", "--json"), ("reconcile", "--apply", "--grace", "1s", "--force"),
        ("expire", "--apply"), ("events", "list", "--json"), ("events", "flush", "--json"), ("usage", "list"),
        ("usage", "export", "--format", "focus"), ("credits", "show", "--json"), ("inspect", "host", "--json"),
        ("recreate", background), ("destroy", sandbox, "--json"), ("list", "--all"), ("doctor", "--json"),
    ):  # fmt: skip
        scene.run(*words)


def ask_the_api(scene: Scene) -> None:
    """The same over HTTP, with secret inputs and environment values in bodies."""
    with serving(scene) as url:
        token = scene.canaries.value("api.token")
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
            answers = [
                client.get("/v1/sandboxes", headers={"Authorization": f"Bearer {scene.canaries.new('api.wrong')}"})
            ]
            for mode in ("well", *ECHOED):
                body: dict[str, Any] = {
                    "profile": f"profile.echo-{mode}", "inputs": {"token": scene.canaries.new(f"input.{mode}")},
                }  # fmt: skip
                answers.append(client.post("/v1/sandboxes", params={"wait": "true"}, json=body))
            made = answers[1].json()["id"]
            env = {"TOKEN": scene.canaries.new("exec.env")}
            answers.append(client.post(f"/v1/sandboxes/{made}/exec", json={"argv": ["sleep", "0.2"], "env": env}))
            answers.append(client.post(f"/v1/sandboxes/{made}/exec", json={"argv": ["no-such-program"], "env": env}))
            wrong = {"profile": "profile.echo-well", "inputs": {"token": [scene.canaries.new("input.wrong-type")]}}
            answers.append(client.post("/v1/sandboxes", json=wrong))
            answers.append(client.post("/v1/sandboxes", content=f'{{"inputs": "{scene.canaries.new("input.broken")}'))
            answers += [
                client.get(path)
                for path in (f"/v1/sandboxes/{made}", "/v1/sandboxes", "/v1/events", "/v1/extensions", "/v1/usage")
            ]
            answers.append(client.post("/v1/route/explain", json={"profile": "profile.echo-well"}))
            answers.append(client.post(f"/v1/sandboxes/{made}/recreate"))
            answers.append(client.delete(f"/v1/sandboxes/{made}"))
    assert answers[0].status_code == 401
    assert answers[1].status_code == 201, answers[1].text
    for answer in answers:
        shown = f"{answer.status_code} {answer.headers} {answer.text}"
        scene.said.append((f"{answer.request.method} {answer.request.url}", Answer(0, shown, "")))


@contextmanager
def serving(scene: Scene) -> Iterator[str]:
    """`sandboxer serve`, its words in a file."""
    output = scene.root / "serve.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            scene.command.words("serve", "--port", "0"),
            env=scene.command.environment, stdout=file, stderr=file, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        yield eventually(lambda: _address(output), within=20, what="the server says where it is")
    finally:
        process.terminate()
        process.wait(20)


def _address(output: Path) -> str:
    words = output.read_text().split()
    return next((word.rstrip(".,/") for word in words if word.startswith("http://127.0.0.1:")), "")


def test_canaries_in_every_channel_are_found_nowhere(tmp_path: Path, bao: OpenBao) -> None:
    """Promise 28."""
    with full(tmp_path, bao) as (scene, echo, hub):
        with Watch(scene.canaries, own=[os.getpid()]) as watch:
            do_everything(scene)
            ask_the_api(scene)
        assert len(scene.canaries) >= 40
        # the channels were really used: what should have arrived did
        sent = scene.canaries.hits(echo.keys().encode("latin-1"))
        assert set(sent) >= {*scene.canaries.channels("key."), "input.well", *(f"input.{mode}" for mode in ECHOED)}
        heard = "\n".join(asked.headers.get("authorization", "") for asked in hub.requests)
        assert scene.canaries.hits(heard.encode()) == ["fin_hub.token", "state_hub.token"]
        assert scene.log.stat().st_size > 10_000
        assert watch.seen > 100
        assert "\n".join(scene.leaks()) == ""
        assert watch.found == {}


@pytest.mark.parametrize(
    ("leak", "where"),
    [
        ("leak-handle", "in data/sandboxes.json"),
        ("leak-base64", "in data/sandboxes.json"),
        ("leak-log", "in debug.log"),
        ("leak-output", "said by `create"),
    ],
)
def test_the_search_finds_a_planted_leak(tmp_path: Path, bao: OpenBao, leak: str, where: str) -> None:
    """Promise 28: a check that has not been seen to fail proves nothing."""
    with EchoServer() as echo:
        scene = small(tmp_path, echo, bao, f"key.{leak}")
        scene.well("create", "--profile", "profile.echo-well")
        assert scene.leaks() == []
        scene.run("create", "--profile", f"profile.{leak}".replace("profile.", "profile.echo-"))
        assert any(found.startswith(f"key.{leak} {where}") for found in scene.leaks())


def test_the_watch_finds_a_planted_argument(tmp_path: Path, bao: OpenBao) -> None:
    """Promise 28: also where it is there for a moment only."""
    with EchoServer() as echo:
        scene = small(tmp_path, echo, bao, "key.argv")
        with Watch(scene.canaries, own=[os.getpid()]) as watch:
            scene.well("create", "--profile", "profile.echo-well")
            assert watch.found == {}
            scene.well("create", "--profile", "profile.echo-leak-argv")
        assert list(watch.found) == ["key.argv"]


def test_parts_of_a_value_and_its_other_forms_are_found() -> None:
    canaries = Canaries()
    value = canaries.new("key", before="p%", after="#é")
    inner = canaries.value("key").encode()
    for form in (inner, inner[:12], inner.upper(), inner.hex().encode(), inner[::-1], value.encode("utf-16")):
        assert canaries.hits(b"x" + form + b"y") == (["key"] if b"\0" not in form else []), form
    for before in ("", "a", "ab"):
        assert canaries.hits(base64.b64encode(f"{before}{value}".encode())) == ["key"]
    assert canaries.hits(b"cnry and nothing that is ours") == []
