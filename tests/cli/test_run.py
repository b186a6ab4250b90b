"""`run`: a command in a sandbox of its own, which goes with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Command
from tests.installations import left_over
from tests.testbed.waiting import eventually

RUN = ("run", "--profile", "profile.fake")


@pytest.fixture
def sandboxer(tmp_path: Path) -> Command:
    return Command(tmp_path)


def records(sandboxer: Command) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sandboxer("list", "--all", "--json").document["sandboxes"]
    return found


def states(sandboxer: Command) -> list[str]:
    return [record["state"] for record in records(sandboxer)]


def test_the_command_runs_inside_and_its_sandbox_goes_with_it(sandboxer: Command) -> None:
    answer = sandboxer(*RUN, "--", "sh", "-c", "cat greeting; echo err >&2; exit 7")
    assert answer == (7, "hello\n", "err\n")
    assert states(sandboxer) == ["destroyed"]
    assert left_over(sandboxer.root) == []


def test_the_document_is_that_of_exec_with_the_sandbox(sandboxer: Command) -> None:
    answer = sandboxer(*RUN, "--json", "-i", "--env", "A=b", "--cwd", "/", "--", "sh", "-c", "cat; pwd; echo $A",
                       stdin=b"in ")  # fmt: skip
    (record,) = records(sandboxer)
    assert (answer.status, answer.stderr) == (0, "")
    assert answer.document == {
        "exit_code": 0, "stdout": "in /\nb\n", "stderr": "", "stdout_base64": None, "stderr_base64": None,
        "stdout_truncated": False, "stderr_truncated": False, "sandbox_id": record["id"],
    }  # fmt: skip


def test_with_keep_the_sandbox_stays_and_its_id_is_told_on_stderr(sandboxer: Command) -> None:
    answer = sandboxer(*RUN, "--keep", "--name", "kept", "--label", "team=blue", "--ttl", "30m", "--", "true")
    (record,) = records(sandboxer)
    assert answer == (0, "", f"{record['id']}\n")
    assert (record["state"], record["name"], record["labels"]) == ("ready", "kept", {"team": "blue"})
    assert sandboxer("reconcile", "--apply").status == 0
    assert states(sandboxer) == ["ready"]


def test_a_command_that_takes_too_long_is_ended_and_its_sandbox_destroyed(sandboxer: Command) -> None:
    answer = sandboxer(*RUN, "--timeout", "5", "--json", "--", "sh", "-c", "echo a part; exec sleep 300")
    (record,) = records(sandboxer)
    assert (answer.status, answer.error["code"], answer.error["sandbox_id"]) == (124, "timeout", record["id"])
    assert answer.error["details"]["stdout"] == "a part\n"
    assert record["state"] == "destroyed"
    assert left_over(sandboxer.root) == []


def test_what_is_wrong_with_the_request_creates_nothing_and_is_125(sandboxer: Command) -> None:
    for words in (
        (*RUN, "--env", "1=b", "--", "true"),
        (*RUN, "--ttl", "9h", "--", "true"),
        (*RUN, "--no-wait", "--", "true"),
        (*RUN, "--", ""),
        (*RUN, "--wings", "--", "true"),
        ("run", "--profile", "profile.none", "--", "true"),
        RUN,
    ):
        answer = sandboxer(*words, "--json") if "--" not in words else sandboxer(words[0], "--json", *words[1:])
        assert answer.status == 125, answer
        assert answer.error["code"] in ("invalid", "not_found"), answer
    assert records(sandboxer) == []


def test_a_dry_run_says_what_a_create_would_do(sandboxer: Command) -> None:
    asked = sandboxer(*RUN, "--dry-run", "--json", "--", "true").document
    assert (asked["dry_run"], asked["extension"]) == (True, "ext.fake")
    assert records(sandboxer) == []


def test_a_key_runs_its_command_once(sandboxer: Command) -> None:
    """The sandbox that a key gave before may be somebody's: it is neither used nor destroyed."""
    made = sandboxer("create", "--profile", "profile.fake", "--idempotency-key", "k", "--json").document
    for _ in range(2):
        answer = sandboxer(*RUN, "--idempotency-key", "k", "--json", "--", "true")
        assert (answer.status, answer.error["code"], answer.error["sandbox_id"]) == (125, "conflict", made["id"])
    assert states(sandboxer) == ["ready"]
    assert sandboxer(*RUN, "--idempotency-key", "other", "--", "true").status == 0
    assert sandboxer(*RUN, "--idempotency-key", "other", "--", "true").status == 125


def test_a_reader_who_has_enough_is_no_failure_and_the_sandbox_goes(sandboxer: Command) -> None:
    process = sandboxer.start(*RUN, "--", "sh", "-c", "while echo more; do :; done")
    assert process.stdout is not None
    assert process.stdout.readline() == b"more\n"
    process.stdout.close()
    assert process.wait(60) == 0
    assert states(sandboxer) == ["destroyed"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupt_ends_the_command_and_destroys_the_sandbox(sandboxer: Command, number: int, status: int) -> None:
    process = sandboxer.start(*RUN, "--", "sh", "-c", "echo $$; exec sleep 300")
    assert process.stdout is not None
    inside = int(process.stdout.readline())
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert b"its sandbox destroyed" in said
    assert states(sandboxer) == ["destroyed"]
    assert left_over(sandboxer.root) == []
    eventually(lambda: not Path(f"/proc/{inside}").exists(), within=60, what="the end of the command")


@pytest.mark.parametrize("sweep", [("expire", "--apply"), ("reconcile", "--apply")])
def test_a_sweep_takes_away_what_a_killed_run_has_left(sandboxer: Command, sweep: tuple[str, ...]) -> None:
    process = sandboxer.start(*RUN, "--", "sh", "-c", "echo on; exec sleep 300")
    assert process.stdout is not None
    assert process.stdout.readline() == b"on\n"
    assert sandboxer(*sweep).status == 0
    assert states(sandboxer) == ["active"]  # it lives, and keeps its sandbox
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    answer = sandboxer(*sweep, "--json")
    (action,) = answer.document["actions"]
    assert (answer.status, action["outcome"]) == (0, "done")
    assert "made for one command" in action["why"]
    assert states(sandboxer) == ["destroyed"]
    assert left_over(sandboxer.root) == []
