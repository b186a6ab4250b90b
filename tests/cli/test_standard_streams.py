"""Streams as odd as they come: full, closed, of another encoding; a working directory that has gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


@pytest.mark.parametrize("words", ["--help", "-h", "", "create --help", "profiles"])
def test_a_full_stdout_is_an_error_of_what_the_parser_prints_too(sandboxer: Command, words: str) -> None:
    """That was a bug, where the words of a command were an output that cannot be written."""
    done = through_shell(sandboxer, f'"$@" {words} >/dev/full')
    assert done.returncode == 8, done.stderr
    assert b"the output cannot be written" in done.stderr


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


def test_a_copy_in_a_working_directory_that_has_gone_says_so(sandboxer: Command) -> None:
    assert sandboxer("create", *FAKE, "--name", "box").status == 0
    assert sandboxer("exec", "box", "--", "sh", "-c", "echo x >file").status == 0
    for words in ("cp box:file .", "cp box:file here", "cp file box:"):
        done = through_shell(sandboxer, f'mkdir gone; cd gone && rmdir ../gone && "$@" {words} --json')
        error = json.loads(done.stdout)["error"]
        assert (error["code"], "the current directory is no longer there" in error["message"]) == ("not_found", True)
        assert b"getcwd" not in done.stderr
    done = through_shell(
        sandboxer, f"mkdir gone; cd gone && rmdir ../gone && \"$@\" cp box:file '{sandboxer.root}/out'"
    )
    assert (done.returncode, (sandboxer.root / "out").read_text()) == (0, "x\n")
    done = through_shell(sandboxer, 'mkdir gone; cd gone && rmdir ../gone && "$@" exec box -- cat file')
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("there", [True, False])
def test_an_input_that_no_record_could_hold_is_refused_by_its_name(sandboxer: Command, *, there: bool) -> None:
    place = sandboxer.root / os.fsdecode(b"x\xff")
    if there:
        place.mkdir()
    made = sandboxer("create", *FAKE, "--input", f"tree={place}", "--json")
    assert (made.status, made.error["code"]) == (2, "invalid")
    assert "input 'tree' is not written in UTF-8" in made.error["message"]
    assert sandboxer("list", "--json").document["sandboxes"] == []


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


PRINTING = [
    "list", "list --all", "get box", "profiles list", "profiles show profile.native", "profiles validate",
    "extensions list", "extensions show ext.native", "inspect host", "events list", "credits show", "usage list",
    "usage export", "tokens list", "audit list", "route explain --profile profile.fake", "expire", "reconcile",
    "create --profile profile.fake --dry-run", "exec box -- echo x", "logs box", "extend-ttl box --duration 1m",
]  # fmt: skip


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """An installation with a sandbox that these tests only look at."""
    here = Command(tmp_path_factory.mktemp("box"))
    assert here("create", *FAKE, "--name", "box").status == 0
    return here


def read_by_nobody(here: Command, *words: str) -> tuple[int, bytes]:
    """The exit status and the complaint of a command whose stdout is a pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            here.words(*words), env=here.environment, cwd=here.root, stdin=subprocess.DEVNULL, stdout=writing,
            stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize("verb", [*PRINTING, "--help", "create --help", "tokens", "--version"])
def test_a_reader_who_has_enough_is_no_failure(box: Command, verb: str) -> None:
    """`set -o pipefail; sandboxer list | head -1` stopped scripts: it was 1."""
    status, complaint = read_by_nobody(box, *verb.split())
    assert (status, complaint.startswith((b"error", b"Traceback"))) == (0, False), complaint


@pytest.mark.parametrize("verb", ["list", "get box", "exec box --", "doctor", "usage export"])
def test_nor_is_one_of_a_document(box: Command, verb: str) -> None:
    words = verb.split()
    words = [*words[:-1], "--json", "--", "true"] if words[-1] == "--" else [*words, "--json"]
    status, complaint = read_by_nobody(box, *words)
    assert (status in (0, 6), complaint) == (True, b"")  # 6: what doctor found on this machine


@pytest.mark.parametrize("command", ["yes", "yes >&2"])
def test_the_first_line_of_a_command_that_never_ends_is_enough(box: Command, command: str) -> None:
    """And the command inside is ended with it."""
    script = f"set -o pipefail; \"$@\" exec box -- sh -c '{command}' 2>&1 | head -n 1"
    words = ["bash", "-c", script, "bash", *box.words()]
    done = subprocess.run(words, env=box.environment, cwd=box.root, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"y\n", b"")


def test_a_broken_pipe_of_somebody_else_is_told() -> None:
    """The parser makes exit status 1, and no word, of every one."""
    program = (
        "import sys; from sandboxer.cli import catalog; from sandboxer.cli.main import main\n"
        "def broken(*_, **__): raise BrokenPipeError(32, 'Broken pipe')\n"
        "catalog.installation = broken; sys.exit(main(['profiles', 'list']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert b"BrokenPipeError" in done.stderr
