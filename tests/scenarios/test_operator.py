"""What an operator and a consumer do, with the command alone, on a real host over SSH."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.running import Command
from tests.installations import lay_out
from tests.testbed.census import Census
from tests.testbed.hosts import ComposeHost, Kind, engine_for, need_kind
from tests.testbed.repositories import web_and_db

pytestmark = pytest.mark.engines
REMAPPED = """\
id: profile.many
version: 1.0.0
extension: ext.compose-ssh
options: {publish: remapped}
ttl: {default: 1h}
inputs:
  repo: {type: path, required: true}
"""
KINDS: tuple[Kind, ...] = ("podman-compose", "docker compose")


class Place:
    """A host with an engine, an operator's installation that knows it, and a repository."""

    def __init__(self, root: Path, host: ComposeHost) -> None:
        self.host = host
        lay_out(root, config=json.dumps({"hosts": {host.name: {**host.config, "compose": host.compose}}}))
        (root / "config" / "profiles" / "profile.many.yaml").write_text(REMAPPED)
        self.sandboxer = Command(root)
        self.repository = web_and_db(root / "repository", port=host.engine.port(0))
        self.before = self.census()

    def census(self) -> Census:
        """Everything on the host."""
        return Census.take(engines=[self.host.engine], dirs=[Path(self.host.work_dir)], marks=[str(self.host.work_dir)])

    def left(self) -> list[str]:
        """What is there now and was not before."""
        return self.census() - self.before

    def create(self, profile: str) -> list[str]:
        """The words of a create on the host."""
        return [
            "create",
            "--profile",
            profile,
            "--input",
            f"repo={self.repository}",
            "--host",
            self.host.name,
            "--json",
        ]

    def settle(self) -> None:
        """Reconcile, and destroy what is recorded."""
        assert self.sandboxer("reconcile", "--apply", "--json", seconds=120).status == 0
        for record in self.sandboxer("list", "--json").document["sandboxes"]:
            assert self.sandboxer("destroy", record["id"], seconds=120).status == 0


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    kind: Kind = request.param
    need_kind(kind)
    root = tmp_path_factory.mktemp("operator")
    with engine_for(kind)() as engine, ComposeHost(root / "host", kind, engine) as host:
        engine.build_base()
        made = Place(root, host)
        yield made
        made.settle()


def fetch(url: str) -> bytes:
    """What a service answers."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - an address that our own sandbox gave
        body: bytes = answer.read()
    return body


def test_a_consumer_that_knows_only_the_contract(place: Place) -> None:
    """Creates by subprocess, enters by SSH as `reachability` says, works in `remote_dir`, asks a service, destroys."""
    made = place.sandboxer(*place.create("profile.compose-e2e"), seconds=120)
    assert made.status == 0, made
    reach = made.document["reachability"]
    assert reach["kind"] == "ssh"
    assert reach["host_key"] == place.host.sshd.fingerprint
    ssh = shlex.split(reach["command"])
    own = ["-i", str(place.host.sshd.identity), "-o", f"UserKnownHostsFile={place.host.sshd.known_hosts}"]
    inside = f"cd {shlex.quote(reach['remote_dir'])} && ls compose.yaml && cat Dockerfile"
    done = subprocess.run(
        [*ssh[:1], *own, "-o", "BatchMode=yes", *ssh[1:], inside],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "FROM" in done.stdout
    (service,) = (s for s in reach["services"] if s["name"] == "web")
    assert service["port"] == place.host.engine.port(0)
    assert fetch(service["url"]) == b"hello\n"
    ran = place.sandboxer("exec", made.document["id"], "--service", "web", "--", "sh", "-c", "exit 9")
    assert ran.status == 9
    assert place.sandboxer("destroy", made.document["id"], "--json", seconds=120).status == 0
    assert place.left() == []


def test_three_sandboxes_of_one_repository_at_once(place: Place) -> None:
    words = place.create("profile.many")
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: place.sandboxer(*words, seconds=150), range(3)))
    assert [answer.status for answer in answers] == [0, 0, 0], answers
    urls = [s["url"] for a in answers for s in a.document["reachability"]["services"] if s["name"] == "web"]
    assert len(set(urls)) == 3
    assert {fetch(url) for url in urls} == {b"hello\n"}
    ids = [answer.document["id"] for answer in answers]
    assert place.sandboxer("destroy", *ids, "--json", seconds=150).status == 0
    assert place.left() == []


def test_a_create_killed_in_the_middle_of_up_is_taken_back(place: Place) -> None:
    """Promise 1, at the worst moment: the front end is bringing services up when its client dies."""
    process = place.sandboxer.start(*place.create("profile.many"))
    deadline = time.monotonic() + 60
    while not place.host.engine.resources()["containers"] and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert place.left() != []
    report = place.sandboxer("reconcile", "--apply", "--json", seconds=120)
    assert report.status == 0, report
    (record,) = place.sandboxer("list", "--json").document["sandboxes"]
    assert (record["state"], record["error"]["code"]) == ("failed", "interrupted")
    assert place.left() == []
    place.settle()


def test_a_stack_that_somebody_took_down_by_hand_fails_with_the_reason_and_nothing_stays(place: Place) -> None:
    """Its directory and its volumes are there, and no container: it cannot run again. One that was only stopped can."""
    made = place.sandboxer(*place.create("profile.many"), seconds=150)
    assert made.status == 0, made
    sandbox_id, folder = made.document["id"], Path(made.document["reachability"]["remote_dir"])
    engine = place.host.engine
    containers = sorted(engine.resources()["containers"])
    engine.run(engine.program, "stop", "-t", "0", *containers)
    seen = place.sandboxer("reconcile", "--json", seconds=120)
    assert "fail" not in [action["action"] for action in seen.document["actions"]], seen
    engine.run(*place.host.compose.split(), "down", "-t", "0", cwd=folder)
    assert [name for name in engine.resources()["containers"] if sandbox_id in name] == []
    assert [name for name in engine.resources()["volumes"] if sandbox_id in name] != []

    stale = place.sandboxer("inspect", "stale", "--grace", "1s", "--json", seconds=120)
    assert [(item["kind"], item["sandbox_id"]) for item in stale.document["stale"]] == [("record", sandbox_id)]
    report = place.sandboxer("reconcile", "--apply", "--json", seconds=120)
    assert report.status == 0, report
    assert [(a["sandbox_id"], a["action"], a["outcome"]) for a in report.document["actions"]] == [
        (sandbox_id, "fail", "done")
    ]
    record = place.sandboxer("get", sandbox_id, "--json").document
    assert (record["state"], record["error"]["code"]) == ("failed", "backend_error")
    assert "its containers are gone" in record["error"]["message"]
    assert place.left() == []
    place.settle()
