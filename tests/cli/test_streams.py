"""Streams as odd as they come: full, closed, of another encoding; a working directory that has gone."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.running import Command

FAKE = ("--profile", "profile.fake")


@pytest.fixture
def sandboxer(tmp_path: Path) -> Command:
    return Command(tmp_path)


def through_shell(sandboxer: Command, script: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell script in which "$@" is the command."""
    words = ["sh", "-c", script, "sh", *sandboxer.words()]
    return subprocess.run(
        words, env=sandboxer.environment, cwd=sandboxer.root, capture_output=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("verb", "status"),
    [("list", 8), ("list --json", 8), ("get nobody --json", 3), ("exec box -- echo x", 125), ("--version", 8)],
)
def test_a_full_stdout_is_an_error_and_no_traceback(sandboxer: Command, verb: str, status: int) -> None:
    assert sandboxer("create", *FAKE, "--name", "box").status == 0
    done = through_shell(sandboxer, f'"$@" {verb} >/dev/full')
    complaint = done.stderr.decode()
    assert done.returncode == status, complaint
    assert complaint.startswith("error:"), complaint
    assert "Traceback" not in complaint
    assert "a bug" not in complaint


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_are_as_good_as_dev_null(sandboxer: Command, closed: str) -> None:
    assert through_shell(sandboxer, f'"$@" create {" ".join(FAKE)} --name box {closed}').returncode == 0
    assert through_shell(sandboxer, f'"$@" get nobody --json {closed}').returncode == 3
    assert through_shell(sandboxer, f'"$@" exec -i box -- sh -c "cat; exit 7" {closed}').returncode == 7


def test_an_error_that_nobody_reads_is_no_traceback(sandboxer: Command) -> None:
    process = sandboxer.start("get", "nobody", "--json")
    assert process.stdout is not None
    process.stdout.close()
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == 3
    assert b"Traceback" not in complaint


@pytest.mark.parametrize("encoding", ["ascii:strict", "latin-1", "utf-8:strict"])
def test_a_document_is_utf_8_whatever_the_terminal_writes(sandboxer: Command, encoding: str) -> None:
    more = {**sandboxer.environment, "PYTHONIOENCODING": encoding}
    made = sandboxer("create", *FAKE, "--label", "k=é✓", "--json", PYTHONIOENCODING=encoding)
    assert made.document["labels"] == {"k": "é✓"}
    words = [*sandboxer.words("cp", "--json"), os.fsdecode(b"not-\xff-text"), "box:"]
    refused = subprocess.run(words, env=more, cwd=sandboxer.root, capture_output=True, timeout=60, check=False)
    assert json.loads(refused.stdout.decode("utf-8"))["error"]["code"] == "not_found"
    listed = sandboxer("doctor", PYTHONIOENCODING=encoding)
    assert "store" in listed.stdout
    assert "Unicode" not in listed.stderr


def test_a_working_directory_that_has_gone_matters_to_relative_paths_only(sandboxer: Command) -> None:
    script = 'mkdir gone && cd gone && rmdir ../gone && "$@" create ' + " ".join(FAKE)
    assert through_shell(sandboxer, script).returncode == 0
    relative = through_shell(sandboxer, script + " --input tree=here --json")
    assert json.loads(relative.stdout)["inputs"] == {"tree": str(sandboxer.root / "gone" / "here")}


def test_what_is_typed_ahead_reaches_the_command_inside(sandboxer: Command) -> None:
    """The terminal is made raw without throwing away what was typed meanwhile."""
    assert sandboxer("create", *FAKE, "--name", "box").status == 0
    primary, terminal = os.openpty()
    try:
        os.write(primary, b"typed ahead\n")
        process = subprocess.Popen(
            sandboxer.words("exec", "-it", "box", "--", "sh", "-c", "read words; echo [$words]"),
            env=sandboxer.environment,
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, complaint = process.communicate(timeout=30)
        finally:
            process.kill()
    finally:
        os.close(primary)
        os.close(terminal)
    assert b"[typed ahead]" in out, complaint


@pytest.mark.parametrize("terminal_kind", ["dumb", "xterm"])
def test_progress_moves_the_cursor_only_where_there_is_one(sandboxer: Command, terminal_kind: str) -> None:
    primary, terminal = os.openpty()
    try:
        subprocess.run(
            sandboxer.words("create", *FAKE),
            env={**sandboxer.environment, "TERM": terminal_kind},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=terminal, timeout=60, check=True,
        )  # fmt: skip
        seen = os.read(primary, 1 << 16).decode()
    finally:
        os.close(primary)
        os.close(terminal)
    assert "ready" in seen
    assert ("\x1b[K" in seen) is (terminal_kind != "dumb")
