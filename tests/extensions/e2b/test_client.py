"""The fake is held to E2B's own clients: the newest, and one that knows only the first version of the API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.extensions.e2b.older_client import older_client
from tests.fakes.e2b import FakeE2B

PROGRAM = Path(__file__).with_name("client_program.py")

EXPECTED: dict[str, Any] = {
    "listed": [True],
    "not_listed": [],
    "info": [True, {"owner": "team a/b&c=d"}, "running"],
    "run": ["hello\n", "err\n", 0, ["hello\n"]],
    "exit": 7,
    "timeout": True,
    "input": "typed\ndone\n",
    "listed_process": True,
    "killed": [True, False],
    "files": ["text", True, ["a.txt", "b.bin"], True, False, True, False, "/home/user/dir/c.txt"],
    "file_not_found": True,
    "terminal": True,
    "resumed": "256",
    "kill": [True, False],
    "dead": True,
    "wrong key": "AuthenticationException",
    "concurrent": ["0/0", "1/1", "2/2", "3/3"],
}


def run(fake: FakeE2B, *words: str, folder: Path | None = None) -> dict[str, Any]:
    """The program's answer, with the client of `folder` or the installed one."""
    env = {"PATH": os.environ["PATH"], **fake.environment()}
    if folder is not None:
        env["PYTHONPATH"] = str(folder)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *words], env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-4000:]
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_the_newest_client_can_do_everything(fake: FakeE2B) -> None:
    seen = run(fake, "keyed")
    assert {name: seen.get(name) for name in EXPECTED} == EXPECTED
    assert (seen["snapshot"], seen["snapshot_deleted"]) == ("256", True)
    assert (seen["same"], seen["mismatch"]) == (True, 422)
    assert seen["no template"] == "SandboxException"
    assert seen["not there"] == "SandboxNotFoundException"
    assert list(fake.census()) == []
    assert {asked.path for asked in fake.asked("POST (/v2)?/sandboxes")} == {"/v2/sandboxes"}


@pytest.mark.parametrize("second", [True, False])
def test_a_client_of_the_first_version_can_do_everything(second: bool) -> None:
    folder = older_client()
    with FakeE2B(second=second) as fake:
        seen = run(fake, folder=folder)
        assert {name: seen.get(name) for name in EXPECTED} == EXPECTED
        assert list(fake.census()) == []
        assert {asked.path for asked in fake.asked("POST (/v2)?/sandboxes")} == {"/sandboxes"}


def test_a_planted_fault_of_the_fake_is_seen_by_the_client(fake: FakeE2B, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake that mixed the streams up would not pass."""
    from tests.fakes.e2b import processes

    real = processes.RunningProcess._tell

    def mixed(self: processes.RunningProcess, event: dict[str, Any], *, last: bool = False) -> None:
        data = event.get("data", {})
        real(self, {"data": {"stdout": data["stderr"]}} if "stderr" in data else event, last=last)

    monkeypatch.setattr(processes.RunningProcess, "_tell", mixed)
    assert run(fake, "keyed")["run"] != EXPECTED["run"]
