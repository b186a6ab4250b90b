"""What a command does not do before it does its work. The figures are in scripts/bench."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import Command

HEAVY = {
    "asyncio", "email", "fastapi", "h11", "http.client", "httpx", "paramiko", "rich",
    "sandboxer.http", "ssl", "starlette", "uvicorn",
}  # fmt: skip


@pytest.fixture
def sandboxer(tmp_path: Path) -> Command:
    return Command(tmp_path)


def run_main(sandboxer: Command, call: str, show: str) -> list[str]:
    """The words that `show` prints, on stderr, in a process that has made the `call`."""
    code = f"import gc, sys\nfrom sandboxer.cli.main import main\n{call}\nprint({show}, file=sys.stderr)"
    argv = [sys.executable, "-c", code, "list", "--json"]
    done = subprocess.run(argv, env=sandboxer.environment, cwd=sandboxer.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr.split()


def test_a_command_imports_nothing_that_it_does_not_use(sandboxer: Command) -> None:
    assert run_main(sandboxer, "main()", f"*(m for m in {HEAVY} if m in sys.modules)") == []


@pytest.mark.parametrize(("call", "frozen"), [("main()", "True"), ("main(sys.argv[1:])", "False")])
def test_garbage_is_collected_after_start_up_and_a_program_that_calls_us_keeps_its_collector_as_it_is(
    sandboxer: Command, call: str, frozen: str
) -> None:
    assert run_main(sandboxer, call, "gc.isenabled(), gc.get_freeze_count() > 0") == ["True", frozen]
