"""What an older version left, running sandboxes too, in the hands of this one: seen, entered or refused, taken away.

The older version is taken from the history, so these tests are skipped in a clone without it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.api.state_hub import Hub
from tests.cli.running import Answer, Command
from tests.installations import lay_out
from tests.testbed import processes
from tests.testbed.census import Census
from tests.testbed.components import REPOSITORY
from tests.testbed.hosts import ComposeHost, Kind, engine_for, need_kind
from tests.testbed.repositories import minimal
from tests.testbed.waiting import eventually

BEFORE = "1f2bce8c578f90adf661536d61bc0f08145344b0"
"""Before sandboxes were guarded: native ones of it are not entered any more."""
SERVING = """\
id: profile.serving
version: 1.0.0
extension: ext.native
ttl: {default: 2h, failed: 30m}
options:
  services: {ticker: {command: [sh, -c, "echo tick; exec sleep 100000"]}}
inputs:
  repo: {type: path}
"""
FAILING = """\
id: profile.failing
version: 1.0.0
extension: ext.native
ttl: {default: 2h, failed: 30m}
options:
  services: {bad: {command: [sh, -c, "echo no luck; exit 3"]}}
"""
COMPOSE: tuple[Kind, ...] = ("podman-compose", "docker compose")
LONG_USED = """\
import os
from sandboxer.bootstrap import install
from sandboxer.models import Request
from sandboxer.testing.fake import FakeExtension, Faults

class Killed(Faults):
    def at(self, point):
        if point == "provision.made":
            os._exit(9)

here = install(dict(os.environ), relay_in_background=False)
for number in range(66):
    made = here.manager.create(here.manager.plan(Request(profile="profile.fake", name=f"ended{number}")))
    here.manager.destroy(made.id)
here.manager.core.extensions.add("ext.fake", lambda: FakeExtension(Killed()))
here.manager.create(here.manager.plan(Request(profile="profile.fake", name="half")))
"""
"""For the older version: more ended sandboxes than stay out of the archive, and one whose creator dies."""
GENEROUS = 120.0


class OlderCommand(Command):
    """`sandboxer` of the older version, with an installation below `root`."""

    def __init__(self, root: Path, source: Path) -> None:
        super().__init__(root, more={"PYTHONPATH": str(source)})


class Machine:
    """An installation that the older version has used, this version's command, and all that there was before."""

    def __init__(self, root: Path, source: Path, *, hosts: Mapping[str, object]) -> None:
        self.root = root
        self._hosts = hosts
        lay_out(root)
        for name, text in {"serving": SERVING, "failing": FAILING}.items():
            (root / "config" / "profiles" / f"profile.{name}.yaml").write_text(text)
        self.older = OlderCommand(root, source)
        self.newer = Command(root)
        self.ids: dict[str, str] = {}

    def hub(self, url: str) -> None:
        """Tell both versions where the State Hub is."""
        config = {"hosts": self._hosts, "state_hub": {"url": url}}
        (self.root / "config" / "config.yaml").write_text(json.dumps(config))

    def create(self, name: str, profile: str, *words: str) -> None:
        """Make a sandbox with the older version."""
        done = self.older("create", "--profile", profile, "--name", name, *words, "--json", seconds=GENEROUS)
        if done.status == 0:
            self.ids[name] = done.document["id"]
        else:
            self.ids[name] = done.error["sandbox_id"]

    def census(self) -> list[str]:
        """The sandboxes' directories, and what runs in them or is mounted there."""
        work = self.root / "work"
        return sorted(Census.take(dirs=[work, work / "saas-stub", work / "fake"], marks=[str(work)]).found)

    def close(self) -> None:
        """Destroy whatever a failed test left, and end the relays: they would try for a minute to reach the hub."""
        for name in self.ids.values():
            self.newer("destroy", name, seconds=GENEROUS)
        self.end_relays()

    def end_relays(self) -> None:
        """Until the next command starts one."""
        eventually(lambda: not _end_relays(str(self.root)), within=GENEROUS, what="the end of the relays")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The older version's package and what belongs to it."""
    git = shutil.which("git")
    words = [str(git), "-c", f"safe.directory={REPOSITORY}", "-C", str(REPOSITORY), "archive", BEFORE]
    packed = (
        subprocess.run([*words, "src", "profiles", "extensions"], capture_output=True, check=False) if git else None
    )
    if packed is None or packed.returncode != 0:
        pytest.skip(f"this clone has no history: {BEFORE[:7]} is not in it")
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "src"


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The URL of a State Hub that is down: its port is ours, and nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def machine(tmp_path: Path, source: Path, nowhere: str) -> Iterator[Machine]:
    """This machine with native and metered sandboxes of the older version in every state; its events were not sent."""
    hosts = {"local": {"work_dir": str(tmp_path / "work")}}
    made = Machine(tmp_path, source, hosts=hosts)
    made.hub(nowhere)
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "file").write_text("from before\n")
    assert made.older("credits", "add", "5", "--json").status == 0
    made.create("served", "profile.serving", "--input", f"repo={tmp_path}/repository")
    made.create("broken", "profile.failing", "--keep-failed")
    made.create("metered", "profile.saas-stub", "--idempotency-key", "once")
    made.create("spent", "profile.saas-stub")
    assert made.older("destroy", "spent", "--json").status == 0
    assert made.older("exec", "served", "--", "cat", "file").stdout == "from before\n"
    yield made
    made.close()


@pytest.fixture
def compose(request: pytest.FixtureRequest, tmp_path: Path, source: Path) -> Iterator[tuple[Machine, ComposeHost]]:
    """A host with an engine, as both versions know it."""
    kind: Kind = request.param
    need_kind(kind)
    with engine_for(kind)() as engine, ComposeHost(tmp_path / "host", kind, engine) as host:
        engine.build_base()
        config = {host.name: {**host.config, "compose": host.compose}}
        made = Machine(tmp_path, source, hosts=config)
        (tmp_path / "config" / "config.yaml").write_text(json.dumps({"hosts": config}))
        yield made, host
        made.close()


def _has_all(now: object, before: object) -> bool:
    """Whether a document tells all that an older one did; it may tell more."""
    if isinstance(before, dict):
        return isinstance(now, dict) and all(key in now and _has_all(now[key], before[key]) for key in before)
    if isinstance(before, list):
        return isinstance(now, list) and len(now) == len(before) and all(map(_has_all, now, before))
    return now == before


def _by_name(answer: Answer) -> dict[str, dict[str, Any]]:
    return {record["name"]: record for record in answer.document["sandboxes"]}


def _end_relays(root: str) -> bool:
    """Whether there were any."""
    ours = [one for one in processes.everyone() if " _relay" in one.command and one.mentions([root])]
    for process in ours:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    return bool(ours)


def _facts(answer: Answer) -> list[dict[str, Any]]:
    """The events, without how their delivery goes."""
    return [{k: v for k, v in event.items() if k not in ("status", "note")} for event in answer.document["events"]]


def test_all_that_was_recorded_is_told_as_it_was(machine: Machine) -> None:
    for words in (
        ("list", "--all", "--json"),
        ("get", "served", "--json"),
        ("get", "broken", "--json"),
        ("get", machine.ids["spent"], "--json"),
        ("credits", "show", "--json"),
    ):
        before, now = machine.older(*words), machine.newer(*words)
        assert before.status == now.status == 0, (words, before, now)
        assert _has_all(now.document, before.document), (words, before.stdout, now.stdout)
    events = [_facts(command("events", "list", "--json")) for command in (machine.older, machine.newer)]
    assert events[0] == events[1] != []
    states = {name: record["state"] for name, record in _by_name(machine.newer("list", "--all", "--json")).items()}
    assert states == {"served": "ready", "broken": "failed", "metered": "ready", "spent": "destroyed"}
    before, now = (command("usage", "list", "--json").document["usage"] for command in (machine.older, machine.newer))
    assert [line["usage_id"] for line in now] == [line["usage_id"] for line in before] != []


def test_a_key_that_was_used_gives_the_sandbox_that_it_gave(machine: Machine) -> None:
    done = machine.newer(
        "create", "--profile", "profile.saas-stub", "--name", "metered", "--idempotency-key", "once", "--json"
    )
    assert done.document["id"] == machine.ids["metered"]
    assert machine.newer("exec", "metered", "--", "echo", "still here").stdout == "still here\n"


def test_nothing_is_found_stale_and_the_doctor_is_content(machine: Machine) -> None:
    found = machine.newer("reconcile", "--apply", "--json", seconds=GENEROUS)
    assert found.status == 0
    assert found.document["actions"] == found.document["remaining"] == []
    doctor = machine.newer("doctor", "--json", seconds=GENEROUS)
    assert doctor.status == 0, doctor.stdout
    told = {finding["subject"]: finding for finding in doctor.document["findings"]}
    assert told["store"]["level"] == told["credits"]["level"] == told["ext.native on local"]["level"] == "ok"


def test_a_running_native_sandbox_is_not_entered_but_its_logs_are_read_and_it_is_made_anew(machine: Machine) -> None:
    for words in (("exec", "served", "--json", "--", "true"), ("cp", "served:file", f"{machine.root}/copy", "--json")):
        refused = machine.newer(*words)
        assert refused.error["code"] == "conflict", refused
        assert f"sandboxer recreate {machine.ids['served']}" in refused.error["hint"]
        workspace = machine.root / "work" / f"sbx-{machine.ids['served']}" / "workspace"
        assert str(workspace) in refused.error["hint"]
        assert (workspace / "file").read_text() == "from before\n"
    assert "tick" in machine.newer("logs", "served").stdout
    assert "no luck" in machine.newer("logs", "broken").stdout
    anew = machine.newer("recreate", "served", "--json", seconds=GENEROUS)
    assert anew.status == 0, anew
    before, machine.ids["served"] = machine.ids["served"], anew.document["id"]
    assert machine.newer("exec", "served", "--", "cat", "file").stdout == "from before\n"
    assert [line for line in machine.census() if before in line] == []


def test_all_are_destroyed_also_while_in_use_and_nothing_is_left_and_the_events_arrive(machine: Machine) -> None:
    unsent = Counter(event["event_type"] for event in machine.older("events", "list", "--json").document["events"])
    assert unsent["sandbox.ready"] == 3
    assert machine.census() != []
    inside = machine.older.start("exec", "served", "--", "sh", "-c", "echo inside; exec sleep 100000")
    with inside:
        assert inside.stdout is not None
        assert inside.stdout.readline() == b"inside\n"
        assert _by_name(machine.newer("list", "--json"))["served"]["state"] == "active"
        for name in ("served", "broken", "metered"):
            done = machine.newer("destroy", name, "--json", seconds=GENEROUS)
            assert done.status == 0, done
        inside.communicate(timeout=GENEROUS)
    assert machine.newer("list", "--json").document["sandboxes"] == []
    left = machine.newer("credits", "show", "--json").document
    assert left["reservations"] == []
    assert left["reserved_usd"] == "0"
    machine.end_relays()
    with Hub() as hub:
        machine.hub(hub.url)
        flushed = machine.newer("events", "flush", "--json", seconds=GENEROUS)
        assert flushed.document["pending"] == 0, flushed
        assert unsent - Counter(hub.kinds) == Counter()
    assert machine.census() == []


def test_archived_records_are_told_and_what_a_dead_command_began_is_taken_back(tmp_path: Path, source: Path) -> None:
    machine = Machine(tmp_path, source, hosts={})
    words = [sys.executable, "-c", LONG_USED]
    done = subprocess.run(words, env=machine.older.environment, timeout=GENEROUS, check=False, capture_output=True)
    assert done.returncode == 9, done
    assert list((tmp_path / "data" / "archive").glob("*.jsonl"))
    before, now = (command("list", "--all", "--json") for command in (machine.older, machine.newer))
    assert len(now.document["sandboxes"]) == 67
    assert _has_all(now.document, before.document)
    assert machine.newer("get", "ended0", "--json").document["state"] == "destroyed"
    assert machine.census() != []
    settled = machine.newer("reconcile", "--apply", "--json", seconds=GENEROUS).document
    half = before.document["sandboxes"][-1]["id"]
    assert [(one["sandbox_id"], one["outcome"]) for one in settled["actions"]] == [(half, "done")]
    assert settled["remaining"] == machine.census() == []
    assert machine.newer("destroy", "half", "--json").document["state"] == "destroyed"


@pytest.mark.engines
@pytest.mark.parametrize("compose", COMPOSE, indirect=True)
def test_a_running_compose_sandbox_is_entered_and_destroyed(compose: tuple[Machine, ComposeHost]) -> None:
    machine, host = compose

    def census() -> Census:
        return Census.take(engines=[host.engine], dirs=[host.work_dir], marks=[str(host.work_dir)])

    empty = census()
    repository = minimal(machine.root / "repository")
    machine.create("stack", "profile.compose-e2e", "--input", f"repo={repository}", "--host", host.name)
    before = machine.older("get", "stack", "--json").document
    assert before["state"] == "ready"
    assert census() - empty != []
    assert _has_all(machine.newer("get", "stack", "--json").document, before)
    found = machine.newer("reconcile", "--apply", "--json", seconds=GENEROUS)
    assert (found.status, found.document["actions"], found.document["remaining"]) == (0, [], [])
    entered = machine.newer("exec", "stack", "--", "echo", "inside", seconds=GENEROUS)
    assert entered.stdout == "inside\n", entered
    assert machine.newer("logs", "stack", seconds=GENEROUS).status == 0
    done = machine.newer("destroy", "stack", "--json", seconds=GENEROUS)
    assert done.document["state"] == "destroyed", done
    assert census() - empty == []
