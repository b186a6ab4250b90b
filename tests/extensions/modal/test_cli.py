"""The command, as an operator uses it, against a fake in a process of its own; and many threads at once."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandboxer.extensions.modal import ModalExtension
from sandboxer.models import Handle
from tests.cli.running import Command
from tests.extensions.modal.harness import context, run, spec
from tests.fakes.modal import FakeModal
from tests.testbed.waiting import eventually

REPOSITORY = Path(__file__).parents[3]


class Elsewhere:
    """A fake in a process of its own; its census is taken with Modal's own SDK, not with ours."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes", "modal"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        self.environment: dict[str, str] = {}
        assert self.process.stdout is not None
        while len(self.environment) < 4:
            line = self.process.stdout.readline().removeprefix("export ").strip()
            assert line, "the fake did not start"
            name, _, value = line.partition("=")
            self.environment[name] = shlex.split(value)[0]

    def census(self, install: str) -> list[str]:
        """Ids of what runs in an installation's App."""
        code = (
            f"import modal; app = modal.App.lookup('sandboxer-{install}', create_if_missing=True)\n"
            "print('\\n'.join(s.object_id for s in modal.Sandbox.list(app_id=app.app_id)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PATH": "/usr/bin:/bin", **self.environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    cloud = Elsewhere(tmp_path_factory.mktemp("fake"))
    yield cloud
    cloud.stop()


@pytest.fixture
def sandboxer(tmp_path: Path, elsewhere: Elsewhere) -> Command:
    command = Command(tmp_path, more=elsewhere.environment)
    assert command("credits", "add", "50", "--json").status == 0
    return command


def install_of(command: Command) -> str:
    """The id of an installation, as its store keeps it."""
    found: str = json.loads((command.root / "data" / "sandboxes.json").read_text())["install"]
    return found


def test_an_operator_gets_a_gpu_uses_it_and_gives_it_back(
    sandboxer: Command, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    made = sandboxer("create", "--profile", "profile.modal-gpu", "--ttl", "30m", "--name", "train", "--json")
    assert made.status == 0, made.stderr
    document = made.document
    assert (document["extension"], document["placement"]["host"]) == ("ext.modal", None)
    assert document["reachability"]["kind"] == "api"
    install = install_of(sandboxer)
    assert elsewhere.census(install) == [document["reachability"]["provider_id"]]
    said = sandboxer("exec", "train", "-i", "--", "sh", "-c", "cat; exit 3", stdin=b"hello")
    assert (said.status, said.stdout) == (3, "hello")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("content")
    assert sandboxer("cp", "tree", "train:/data/").status == 0
    assert sandboxer("cp", "train:/data/tree", "back").status == 0
    assert (tmp_path / "back" / "file").read_text() == "content"
    assert sandboxer("extend-ttl", "train", "--duration", "1h", "--json").status == 0
    assert "Traceback" not in made.stderr + said.stderr
    assert said.stderr == ""
    gone = sandboxer("destroy", "train", "--json", "--force")
    assert gone.status == 0, gone.stderr
    assert elsewhere.census(install) == []


@pytest.mark.parametrize("terminal", [False, True], ids=["a pipe", "a terminal"])
def test_a_command_ends_as_it_ends_while_its_input_is_still_open(sandboxer: Command, terminal: bool) -> None:
    """Promise 22: whoever still reads an input that nobody needs must not keep this process from its end."""
    made = sandboxer("create", "--profile", "profile.modal-gpu", "--json")
    reading, writing = os.openpty() if terminal else os.pipe()
    if terminal:
        reading, writing = writing, reading
    options = ["-i", "-t"] if terminal else ["-i"]
    running = subprocess.Popen(
        sandboxer.words("exec", *options, made.document["id"], "--", "sh", "-c", "echo begun; exit 3"),
        env=sandboxer.environment,
        cwd=sandboxer.root,
        stdin=reading,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = running.communicate(timeout=60)
    os.close(reading)
    os.close(writing)
    assert (running.returncode, out.split(), err) == (3, [b"begun"], b"")
    assert sandboxer("destroy", made.document["id"], "--force").status == 0


def test_wrong_credentials_are_exit_11_and_name_the_variables(sandboxer: Command) -> None:
    refused = sandboxer("create", "--profile", "profile.modal-gpu", "--json", MODAL_TOKEN_SECRET="as-wrong")
    assert refused.status == 11, refused.stdout
    assert "MODAL_TOKEN_SECRET" in refused.error["hint"]
    assert "as-wrong" not in refused.stdout + refused.stderr


def test_a_create_that_is_killed_leaves_nothing_after_reconcile(sandboxer: Command, elsewhere: Elsewhere) -> None:
    """Promise 1, at one moment; tests/crash has the others."""
    creating = sandboxer.start("create", "--profile", "profile.modal-gpu", "--json")
    store = sandboxer.root / "data" / "sandboxes.json"
    eventually(lambda: store.exists() and '"provider_id"' in store.read_text(), within=20, what="the intent is durable")
    creating.kill()
    creating.communicate()
    install = install_of(sandboxer)
    settled = sandboxer("reconcile", "--apply", "--json")
    assert settled.status in (0, 10), settled.stderr
    eventually(lambda: elsewhere.census(install) == [], within=20, every=0.5, what="nothing is left")


def test_fifty_threads_create_at_once(clean: FakeModal) -> None:
    """API threads share one connection: one look-up of the App and the image, fifty sandboxes, none of them twice."""
    extension, before, install = ModalExtension(), len(clean.calls), "fiftythreads"
    clean.latency = 0.02

    def one(_n: int) -> Handle:
        handle = extension.provision(
            spec(install=install, image="python:3.12"), context(clean, seconds=60, install=install)
        )
        extension.wait_ready(handle, context(clean, seconds=60))
        return handle

    started = time.monotonic()
    with ThreadPoolExecutor(50) as threads:
        handles = list(threads.map(one, range(50)))
        together = time.monotonic() - started
        assert len({handle.data["provider_id"] for handle in handles}) == 50
        assert sorted(clean.census()) == sorted(handle.data["provider_id"] for handle in handles)
        answers = list(threads.map(lambda pair: run(clean, pair[1], "echo", str(pair[0])), enumerate(handles)))
        assert [out for _, out, _ in answers] == [f"{n}\n".encode() for n in range(50)]
        list(threads.map(lambda handle: extension.teardown(handle, context(clean, seconds=60)), handles))
    assert clean.census() == []
    calls = [call.method for call in clean.calls[before:]]
    assert (calls.count("AppGetOrCreate"), calls.count("ImageGetOrCreate")) == (1, 1)
    assert together < 30
