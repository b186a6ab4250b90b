"""The programs that pages show are run: the author's guide, and the consumer that knows only its contract."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cli.running import Command
from tests.docs.pages import ROOT, files
from tests.installations import left_over

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


def _consume(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    sandboxer = Command(tmp_path)
    script = tmp_path / "consumer.py"
    script.write_text(CONSUMER["consumer.py"])
    path = f"{Path(sys.executable).parent}{os.pathsep}{sandboxer.environment['PATH']}"
    return subprocess.run(
        [sys.executable, str(script), *words],
        env={**sandboxer.environment, "PATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_consumer_of_the_contract_runs_a_command_and_leaves_nothing(tmp_path: Path) -> None:
    done = _consume(tmp_path, "profile.fake", "greeting=good day", "--", "sh", "-c", "cat greeting; exit 7")
    assert (done.returncode, done.stdout) == (7, "good day\n"), done.stderr
    assert left_over(tmp_path) == []


def test_the_consumer_of_the_contract_tells_what_went_wrong(tmp_path: Path) -> None:
    done = _consume(tmp_path, "profile.nothing", "--", "true")
    assert done.returncode == 1
    assert "not_found" in done.stderr
