"""Promise 28: a secret's value is in no argv, log, error, event or store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.running import Command
from tests.testbed.waiting import eventually

CANARY = "canary-5d1f0c9b7e"


def holders(root: Path) -> list[str]:
    """Files below `root` and command lines on this machine that hold the canary."""
    needle = CANARY.encode()
    found = [str(path) for path in root.rglob("*") if path.is_file() and needle in path.read_bytes()]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if needle in words and f"/{os.getpid()}/" not in str(entry):
            found.append(f"{entry}: {words!r}")
    return found


def test_environment_values_of_exec_are_in_no_command_line_and_no_file(tmp_path: Path) -> None:
    # The command itself gets the value as an option; so the manager is asked directly, in a process of its own.
    sandboxer = Command(tmp_path)
    sandbox_id = sandboxer("create", "--profile", "profile.native", "--json").document["id"]
    script = (
        "import sys, os\n"
        "from sandboxer.bootstrap import install\n"
        "from sandboxer.extensions.base import Exec\n"
        "from sandboxer.hosts.base import Streams\n"
        "here = install(relay_in_background=False)\n"
        "value = sys.stdin.readline().strip()\n"
        "out = lambda chunk: (sys.stdout.write(chunk.decode()), sys.stdout.flush())\n"
        f"here.manager.exec('{sandbox_id}', Exec(argv=('sh', '-c', 'echo $TOKEN; sleep 2'), env={{'TOKEN': value}}),"
        " Streams(stdout=out, stderr=out))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=sandboxer.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(CANARY + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == CANARY + "\n"
    assert holders(tmp_path) == []
    process.communicate(timeout=20)
    assert holders(tmp_path) == []
    sandboxer("destroy", sandbox_id)


def test_a_secret_input_is_nowhere_also_when_the_create_fails(tmp_path: Path) -> None:
    sandboxer = Command(tmp_path)
    words = ("create", "--profile", "profile.fake", "--input", f"token={CANARY}", "--json")
    for more in ((), ("--no-wait",), ("--name", "Not Allowed")):
        answer = sandboxer(*words, *more)
        assert CANARY not in answer.stdout + answer.stderr
    eventually(
        lambda: {s["state"] for s in sandboxer("list", "--json").document["sandboxes"]} == {"ready"},
        within=20,
        what="both are ready",
    )
    assert CANARY not in sandboxer("events", "list", "--json").stdout
    assert holders(tmp_path) == []


def test_the_search_finds_a_planted_canary(tmp_path: Path) -> None:
    (tmp_path / "leak").write_text(CANARY)
    assert holders(tmp_path) == [str(tmp_path / "leak")]
