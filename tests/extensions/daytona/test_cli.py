"""What an operator does, with the command alone: `profile.daytona-dev` against the fake."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import Command
from tests.fakes import Fault
from tests.fakes.daytona import FakeDaytona
from tests.testbed.waiting import eventually

PROFILE = """\
id: profile.daytona-web
version: 1.0.0
extension: ext.daytona
ttl: {default: 1h, max: 4h}
options: {image: "debian:13", cpu: 2, memory_gib: 4, ports: [18573], ssh: true}
pricing_model: metered
"""


@pytest.fixture
def fake() -> Iterator[FakeDaytona]:
    with FakeDaytona(create_seconds=0.1) as cloud:
        yield cloud


@pytest.fixture
def sandboxer(tmp_path: Path, fake: FakeDaytona) -> Command:
    command = Command(tmp_path, more=fake.environment())
    (tmp_path / "config" / "profiles" / "profile.daytona-web.yaml").write_text(PROFILE)
    assert command("credits", "add", "10").status == 0
    return command


def test_from_create_to_destroy(sandboxer: Command, fake: FakeDaytona, tmp_path: Path) -> None:
    made = sandboxer("create", "--profile", "profile.daytona-dev", "--name", "dev", "--json")
    assert made.status == 0, made
    document = made.document
    assert (document["extension"], document["state"], document["placement"]["host"]) == ("ext.daytona", "ready", None)
    assert document["isolation"]["class"] == "container"
    assert document["reachability"]["kind"] == "api"
    assert document["reachability"]["provider_id"] in fake.census()[0]
    assert document["reachability"]["command"] == f"sandboxer exec {document['id']} -- sh"
    assert document["cost"]["pricing_model"] == "metered"
    ran = sandboxer("exec", "dev", "--env", "A=b c", "--", "sh", "-c", 'echo "$A"; echo bad >&2; exit 9')
    assert (ran.status, ran.stdout, ran.stderr.splitlines()[-1:]) == (9, "b c\n", ["bad"])
    assert sandboxer("exec", "-i", "dev", "--", "cat", stdin=b"through").stdout == "through"
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("content")
    assert sandboxer("cp", "./tree", "dev:there").status == 0
    assert sandboxer("cp", "dev:there/file", "./back").status == 0
    assert (tmp_path / "back").read_text() == "content"
    assert sandboxer("logs", "dev").status == 0
    before = fake.control.shown(next(iter(fake.estate.machines.values())))["autoDestroyAt"]
    assert sandboxer("extend-ttl", "dev", "--duration", "1h").status == 0
    assert fake.control.shown(next(iter(fake.estate.machines.values())))["autoDestroyAt"] > before
    (kept,) = json.loads((tmp_path / "data" / "sandboxes.json").read_text())["sandboxes"].values()
    assert kept["handle"]["data"]["until"] >= kept["expires_at"], "it remembers when Daytona ends it now"
    assert sandboxer("destroy", "dev", "--json").status == 0
    assert fake.census() == []
    assert sandboxer("reconcile", "--json").document["actions"] == []


def test_ports_and_ssh_are_told_without_what_lets_in(sandboxer: Command, fake: FakeDaytona, tmp_path: Path) -> None:
    """Promise 28: tokens of previews and of SSH are credentials, and are nowhere on this machine."""
    made = sandboxer("create", "--profile", "profile.daytona-web", "--json")
    assert made.status == 0, made
    reach = made.document["reachability"]
    (service,) = reach["services"]
    assert (service["container_port"], service["url"].endswith("/18573")) == (18573, True)
    assert (reach["host"], reach["port"]) == ("127.0.0.1", 2222)
    assert reach["tunnel"]["ssh"]["request"].startswith(
        f"POST {fake.url}/api/sandbox/{reach['provider_id']}/ssh-access"
    )
    assert fake.ssh_tokens == [], "the one that told the gateway's address was taken back"
    sandbox_id = made.document["id"]
    ran = sandboxer("exec", sandbox_id, "--", "sh", "-c", "mkdir web && echo hello > web/index.html")
    assert ran.status == 0
    serve = "cd web && exec python3 -m http.server 18573 --bind 127.0.0.1 >/dev/null 2>&1 &"
    assert sandboxer("exec", sandbox_id, "--", "sh", "-c", serve).status == 0
    machine = next(iter(fake.estate.machines.values()))

    def fetch() -> bytes:
        asked = urllib.request.Request(f"{service['url']}/", headers={"x-daytona-preview-token": machine.preview})  # noqa: S310
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:  # noqa: S310 - the fake's own address
                body: bytes = answer.read()
        except OSError:
            return b""
        return body

    assert eventually(fetch, within=20, what="the service answers") == b"hello\n"
    texts = b"".join(file.read_bytes() for file in (tmp_path / "data").rglob("*") if file.is_file())
    for secret in (machine.preview, fake.environment()["DAYTONA_API_KEY"]):
        assert secret.encode() not in texts
        assert secret not in made.stdout + made.stderr
    assert sandboxer("destroy", sandbox_id).status == 0
    assert fake.census() == []


def test_without_a_key_it_is_not_configured_and_nothing_is_asked(sandboxer: Command, fake: FakeDaytona) -> None:
    answer = sandboxer("create", "--profile", "profile.daytona-dev", "--json", DAYTONA_API_KEY="")
    assert answer.status == 6, answer
    assert "DAYTONA_API_KEY" in answer.error["message"] + answer.error["hint"]
    assert len(fake.requests) == 0


def test_a_key_that_is_refused_is_denied(sandboxer: Command, fake: FakeDaytona) -> None:
    answer = sandboxer("create", "--profile", "profile.daytona-dev", "--json", DAYTONA_API_KEY="dtn_wrong_key_here")
    assert (answer.status, answer.error["code"]) == (11, "denied"), answer
    assert "dtn_wrong_key_here" not in answer.stdout + answer.stderr
    assert fake.census() == []


def test_an_answer_that_is_lost_leaves_one_sandbox_and_one_bill(sandboxer: Command, fake: FakeDaytona) -> None:
    """Promises 7 and 19."""
    fake.script.add(Fault(match="POST /api/sandbox", kind="lost-answer"))
    made = sandboxer("create", "--profile", "profile.daytona-dev", "--json")
    assert made.status == 0, made
    assert (fake.creates, len(fake.census())) == (1, 1)
    assert sandboxer("destroy", made.document["id"]).status == 0
    assert len(sandboxer("usage", "list", "--json").document["usage"]) == 1
    assert fake.census() == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault(match="POST /api/sandbox", kind="hang"),
        Fault(match="POST /api/sandbox", kind="trickle"),
        Fault(match="GET /api/sandbox/.*", kind="hang"),
        Fault(match="GET /toolbox/.*", kind="hang"),
    ],
    ids=["before it is made", "made, and not told", "before it is looked at", "before it is ready"],
)
def test_a_create_that_is_killed_leaves_nothing_after_reconcile(
    sandboxer: Command, fake: FakeDaytona, fault: Fault
) -> None:
    """Promise 1, on both sides of each call."""
    fake.script.add(fault)
    process = sandboxer.start("create", "--profile", "profile.daytona-dev", "--json")
    made = 0 if fault.kind == "hang" and fault.match.startswith("POST") else 1
    eventually(lambda: fake.script.struck and fake.creates == made, within=30, what="the fault strikes")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    settled = sandboxer("reconcile", "--apply", "--json")
    assert settled.status == 0, settled
    assert fake.census() == []
    for record in sandboxer("list", "--json").document["sandboxes"]:
        assert record["state"] == "failed"
        assert sandboxer("destroy", record["id"]).status == 0


def test_a_sandbox_that_daytona_has_lost_is_settled(sandboxer: Command, fake: FakeDaytona) -> None:
    made = sandboxer("create", "--profile", "profile.daytona-dev", "--ttl", "10m", "--json")
    fake.forward(3600)
    assert fake.census() == []
    assert json.loads(sandboxer("reconcile", "--apply", "--json").stdout)["remaining"] == []
    assert sandboxer("destroy", made.document["id"]).status == 0
