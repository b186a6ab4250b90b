"""The programs that pages show are run: the author's guide, and the consumer that knows only its contract."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.running import Command
from tests.docs.pages import ROOT, blocks, files
from tests.installations import lay_out, left_over
from tests.testbed.components import need
from tests.testbed.sshd import Sshd
from tests.testbed.waiting import eventually

README = ROOT / "README.md"
GUIDE = files(ROOT / "docs" / "extension-sdk.md")
CONSUMER = files(ROOT / "docs" / "integrations" / "wise-validator.md")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The guide's module in a directory for PYTHONPATH."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name in ("scratchpad.py", "test_scratchpad.py"):
        (folder / name).write_text(GUIDE[name])
    return folder


def test_the_extension_of_the_guide_passes_the_conformance_suite(package: Path) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_scratchpad.py"]
    done = subprocess.run(words, cwd=package, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
    assert "1 xfailed" in done.stdout


@pytest.mark.parametrize("way", ["entry point", "manifest"])
def test_the_extension_of_the_guide_is_found_by_its_entry_point_and_by_its_manifest(
    tmp_path: Path, package: Path, way: str
) -> None:
    sandboxer = Command(tmp_path, more={"PYTHONPATH": str(package)})
    config = tmp_path / "config"
    (config / "profiles" / "profile.scratch.yaml").write_text(GUIDE["profiles/profile.scratch.yaml"])
    if way == "manifest":
        (config / "extensions" / "ext.scratch.yaml").write_text(GUIDE["extensions/ext.scratch.yaml"])
    else:
        _install(package)
    shown = sandboxer("extensions", "show", "ext.scratch", "--json").document
    assert shown["capabilities"] == ["exec", "renew"]
    assert shown["isolation"]["class"] == "none"
    assert sandboxer("profiles", "validate").status == 0
    made = sandboxer("create", "--profile", "profile.scratch", "--name", "pad", "--json").document
    assert made["state"] == "ready"
    assert sandboxer("exec", "pad", "--", "cat", "greeting").stdout == "hello\n"
    assert sandboxer("destroy", "pad").status == 0
    assert list((tmp_path / "work" / "scratch").iterdir()) == []


def _install(package: Path) -> None:
    """What an installer writes for the guide's pyproject.toml."""
    project = tomllib.loads(GUIDE["pyproject.toml"])["project"]
    info = package / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["sandboxer.extensions"]
    lines = [f"{name} = {target}" for name, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[sandboxer.extensions]", *lines]) + "\n")


def _consume(sandboxer: Command, *words: str) -> subprocess.CompletedProcess[str]:
    script = sandboxer.root / "consumer.py"
    script.write_text(CONSUMER["consumer.py"])
    path = f"{Path(sys.executable).parent}{os.pathsep}{sandboxer.environment['PATH']}"
    return subprocess.run(
        [sys.executable, str(script), *words],
        env={**sandboxer.environment, "PATH": path},
        cwd=sandboxer.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_consumer_of_the_contract_runs_a_command_and_leaves_nothing(tmp_path: Path) -> None:
    done = _consume(Command(tmp_path), "profile.fake", "greeting=x", "--", "sh", "-c", "cat greeting; exit 7")
    assert (done.returncode, done.stdout) == (7, "hello\n"), done.stderr
    assert left_over(tmp_path) == []


def test_the_consumer_of_the_contract_reaches_a_host_over_ssh(tmp_path: Path, package: Path) -> None:
    """With its own key, and the host key that sandboxer has verified; it gets nothing else from us."""
    need("sshd")
    with Sshd(tmp_path / "sshd") as server, _agent(tmp_path, server.identity) as agent:
        lay_out(tmp_path, config=_one_host(server, tmp_path))
        (tmp_path / "config" / "profiles" / "profile.scratch.yaml").write_text(GUIDE["profiles/profile.scratch.yaml"])
        more = {"PYTHONPATH": str(package), "SANDBOXER_HOST": "there", "SSH_AUTH_SOCK": str(agent)}
        _install(package)
        sandboxer = Command(tmp_path, more=more)
        words = ("sh", "-c", 'test -n "$SSH_CONNECTION" && cat "$1"; exit 9', "sh", "greeting")
        done = _consume(sandboxer, "profile.scratch", "--", *words)
    assert (done.returncode, done.stdout) == (9, "hello\n"), done.stderr
    assert list((tmp_path / "over there" / "scratch").iterdir()) == []


def _one_host(server: Sshd, root: Path) -> str:
    entry = {
        "address": server.host,
        "user": server.user,
        "port": server.port,
        "host_key": server.fingerprint,
        "work_dir": f"{root}/over there",
    }
    return json.dumps({"hosts": {"there": entry}})


@contextmanager
def _agent(root: Path, identity: Path) -> Iterator[Path]:
    """An agent of this test's own, with one key."""
    sock = root / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL)
    try:
        eventually(sock.exists, within=10, what="the agent to listen")
        environment = {**os.environ, "SSH_AUTH_SOCK": str(sock)}
        subprocess.run(["ssh-add", "-q", str(identity)], env=environment, check=True, timeout=10)
        yield sock
    finally:
        process.terminate()
        process.wait(10)


def test_the_consumer_of_the_contract_tells_what_went_wrong(tmp_path: Path) -> None:
    done = _consume(Command(tmp_path), "profile.nothing", "--", "true")
    assert done.returncode == 1
    assert "not_found" in done.stderr


def test_the_first_minutes_of_the_readme_go_as_written(tmp_path: Path) -> None:
    lay_out(tmp_path)
    sandboxer = Command(tmp_path)
    (tmp_path / "README.md").write_text(README.read_text())
    (shown,) = [block for block in blocks(README.read_text(), "sh") if "play:notes/" in block]
    lines = [shlex.split(line) for line in shown.splitlines()]
    assert lines[0] == ["sandboxer", "create"]
    said = [sandboxer(*words[1:]) for words in lines]
    assert [answer.status for answer in said] == [0] * len(lines), said
    assert (tmp_path / "notes-from-inside" / "README.md").read_text() == README.read_text()
    canary = sandboxer("list", "--json").document["sandboxes"]
    assert [sandbox["profile"] for sandbox in canary] == ["profile.sandbox-canary"]
    assert canary[0]["report"]["isolation"]["contradictions"] == []
    assert sandboxer("destroy", canary[0]["id"]).status == 0
    assert list((tmp_path / "work").glob("sbx-*")) == []
