"""The command as its users see it: documents, exit codes, streams."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path

import pytest

from tests.cli.running import Command
from tests.installations import left_over
from tests.testbed.waiting import eventually

FAKE = ("--profile", "profile.fake")


@pytest.fixture
def sandboxer(tmp_path: Path) -> Command:
    return Command(tmp_path)


def test_a_sandbox_lives_through_every_verb(sandboxer: Command, tmp_path: Path) -> None:
    made = sandboxer("create", *FAKE, "--name", "web", "--label", "team=blue", "--ttl", "30m", "--json")
    assert made.status == 0
    sandbox_id = made.document["id"]
    assert made.document["state"] == "ready"
    assert sandboxer("get", sandbox_id[:5], "--json").document == sandboxer("get", "web", "--json").document
    assert "none, network host, system calls not filtered" in sandboxer("get", "web").stdout
    listed = sandboxer("list", "--label", "team=blue", "--json").document
    assert [item["id"] for item in listed["sandboxes"]] == [sandbox_id]
    assert sandboxer("list", "--state", "failed", "--json").document == {"sandboxes": []}
    ran = sandboxer("exec", "web", "--env", "A=b c", "--", "sh", "-c", 'echo "$A"; echo no >&2; exit 7')
    assert (ran.status, ran.stdout, ran.stderr) == (7, "b c\n", "no\n")
    assert sandboxer("exec", "-i", "web", "--", "cat", stdin=b"in").stdout == "in"
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").write_text("text")
    assert sandboxer("cp", "here", "web:there/below", "--json").status == 0
    assert sandboxer("exec", "web", "--", "cat", "there/below/file").stdout == "text"
    assert sandboxer("cp", "web:there", "back").status == 0
    assert (tmp_path / "back" / "below" / "file").read_text() == "text"
    assert sandboxer("logs", "web").stdout == "established\n"
    longer = sandboxer("extend-ttl", "web", "--duration", "1h", "--json")
    assert longer.document["expires_at"] > made.document["expires_at"]
    again = sandboxer("recreate", "web", "--json").document
    assert again["id"] != sandbox_id
    gone = sandboxer("destroy", "web", "--json")
    assert (gone.status, gone.document["state"]) == (0, "destroyed")
    assert sandboxer("destroy", again["id"], "--json").status == 0
    assert [item["state"] for item in sandboxer("list", "--all", "--json").document["sandboxes"]] == ["destroyed"] * 2
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (("create", "--profile", "profile.nope"), 3, "not_found"),
        (("create", *FAKE, "--ttl", "9h"), 2, "invalid"),
        (("create", *FAKE, "--input", "nope=1"), 2, "invalid"),
        (("create", *FAKE, "--input", "nope"), 2, "invalid"),
        (("create", *FAKE, "--ttl", "soon"), 2, "invalid"),
        (("create", *FAKE, "--actor", "me"), 2, "invalid"),
        (("create", *FAKE, "--name", "Not A Name"), 2, "invalid"),
        (("create", *FAKE, "--label", "sandboxer.id=x"), 2, "invalid"),
        (("create", *FAKE, "--bogus"), 2, "invalid"),
        (("create", *FAKE, "--host", "-oProxyCommand=x"), 2, "invalid"),
        (("get", "nobody"), 3, "not_found"),
        (("get",), 2, "invalid"),
        (("list", "--state", "happy"), 2, "invalid"),
        (("destroy", "nobody"), 3, "not_found"),
        (("exec", "nobody", "--", "true"), 125, "not_found"),
        (("cp", "a", "b"), 2, "invalid"),
        (("bogus",), 2, "invalid"),
        (("profiles", "show", "profile.nope"), 3, "not_found"),
        (("extensions", "show", "ext.nope"), 3, "not_found"),
        (("events", "flush"), 6, "not_configured"),
    ],
)
def test_what_goes_wrong_has_its_exit_code_and_one_document_with_a_hint(
    sandboxer: Command, words: tuple[str, ...], status: int, code: str
) -> None:
    place = words.index("--") if "--" in words else len(words)
    answer = sandboxer(*words[:place], "--json", *words[place:])
    assert (answer.status, answer.error["code"]) == (status, code), answer
    assert answer.error["hint"]
    assert {"code", "message", "hint", "retryable", "outcome"} <= set(answer.error)
    plain = sandboxer(*words)
    assert plain.status == status
    assert plain.stdout == ""
    assert "hint:" in plain.stderr


def test_the_exit_status_of_exec_is_the_commands_own(sandboxer: Command) -> None:
    sandbox_id = sandboxer("create", *FAKE, "--json").document["id"]
    for script, status in (("exit 42", 42), ("kill -9 $$", 137), ("exit 125", 125)):
        assert sandboxer("exec", sandbox_id, "--", "sh", "-c", script).status == status
    assert sandboxer("exec", sandbox_id, "--", "no-such-program").status == 127
    late = sandboxer("exec", sandbox_id, "--timeout", "1s", "--json", "--", "sleep", "60")
    assert (late.status, late.error["code"]) == (124, "timeout")
    kept = sandboxer("exec", sandbox_id, "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    told = {name: kept.document[name] for name in ("exit_code", "stdout", "stderr")}
    assert (kept.status, told) == (3, {"exit_code": 3, "stdout": "out\n", "stderr": "err\n"})


def test_words_after_the_dashes_belong_to_the_command_inside(sandboxer: Command) -> None:
    sandbox_id = sandboxer("create", *FAKE, "--json").document["id"]
    ran = sandboxer("exec", sandbox_id, "--", "printf", "%s ", "--json", "--help", "-i")
    assert ran.stdout == "--json --help -i "


def test_json_can_be_asked_for_by_the_environment(sandboxer: Command) -> None:
    assert sandboxer("list", SANDBOXER_OUTPUT="json").document == {"sandboxes": []}
    assert sandboxer("get", "nobody", SANDBOXER_OUTPUT="json").error["code"] == "not_found"


def test_no_colours_and_no_progress_without_a_terminal(sandboxer: Command) -> None:
    made = sandboxer("create", *FAKE)
    assert "\x1b" not in made.stdout + made.stderr
    assert "id " in made.stdout


def test_a_dry_run_touches_nothing(sandboxer: Command, tmp_path: Path) -> None:
    plan = sandboxer("create", *FAKE, "--dry-run", "--json")
    assert plan.status == 0
    assert plan.document["route"]["decisions"][0]["outcome"] == "chosen"
    assert not (tmp_path / "data" / "sandboxes.json").exists()
    assert left_over(tmp_path) == []


def test_no_wait_answers_at_once_and_the_work_goes_on(sandboxer: Command) -> None:
    begun = sandboxer("create", *FAKE, "--no-wait", "--json")
    assert (begun.status, begun.document["state"]) == (0, "provisioning")
    sandbox_id = begun.document["id"]
    assert sandboxer("reconcile", "--apply", "--json").document["actions"] == []
    eventually(
        lambda: sandboxer("get", sandbox_id, "--json").document["state"] == "ready", within=15, what="it gets ready"
    )


def test_the_process_that_goes_on_finds_a_relative_directory_where_it_is(tmp_path: Path) -> None:
    """It starts at `/`, so that it keeps no file system busy."""
    relative = {"SANDBOXER_DATA_DIR": str(tmp_path / "some data"), "SANDBOXER_CONFIG_DIR": "settings"}
    there = Command(tmp_path, more=relative)
    (tmp_path / "config").rename(tmp_path / "settings")
    begun = there("create", *FAKE, "--no-wait", "--json")
    assert begun.status == 0
    eventually(
        lambda: there("get", begun.document["id"], "--json").document["state"] == "ready",
        within=15,
        what="it gets ready",
    )
    assert (tmp_path / "some data" / "sandboxes.json").is_file()


def test_the_same_key_gives_the_same_sandbox(sandboxer: Command) -> None:
    words = ("create", *FAKE, "--idempotency-key", "k", "--json")
    assert sandboxer(*words).document["id"] == sandboxer(*words).document["id"]
    assert sandboxer(*words, "--ttl", "5m").status == 4


def test_files_are_private_whatever_the_umask(sandboxer: Command, tmp_path: Path) -> None:
    """Promise 28: files 0600, directories 0700."""
    before = os.umask(0)
    try:
        sandboxer("create", *FAKE)
    finally:
        os.umask(before)
    for path in [tmp_path / "data", *(tmp_path / "data").rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), f"{path} is {mode:o}"


def test_an_unreadable_store_is_told_and_kept_and_doctor_mends_it(sandboxer: Command, tmp_path: Path) -> None:
    """Promise 13."""
    sandbox_id = sandboxer("create", *FAKE, "--json").document["id"]
    file = tmp_path / "data" / "sandboxes.json"
    file.write_bytes(b'{"schema_version": 1, "sandb')
    refused = sandboxer("list", "--json")
    assert (refused.status, refused.error["code"]) == (13, "store_corrupt")
    assert "doctor" in refused.error["hint"]
    assert sandboxer("create", *FAKE).status == 13
    assert file.read_bytes() == b'{"schema_version": 1, "sandb'
    assert sandboxer("doctor", "--json").status == 13
    assert sandboxer("doctor", "--repair", "--json").status == 0
    assert sandboxer("exec", sandbox_id, "--", "cat", "greeting").stdout == "hello\n"
    assert [p.read_bytes() for p in (tmp_path / "data").glob("*unreadable*")] == [b'{"schema_version": 1, "sandb']


def test_a_closed_pipe_is_no_error(sandboxer: Command) -> None:
    sandboxer("create", *FAKE)
    process = sandboxer.start("list")
    assert process.stdout is not None
    process.stdout.close()
    _, complaint = process.communicate(timeout=30)
    assert complaint == b""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_command_with_128_plus_its_number(
    sandboxer: Command, number: signal.Signals, status: int
) -> None:
    sandbox_id = sandboxer("create", *FAKE, "--json").document["id"]
    process = sandboxer.start("exec", sandbox_id, "--json", "--", "sh", "-c", "echo started; sleep 60")
    eventually(
        lambda: sandboxer("get", sandbox_id, "--json").document["state"] == "active", within=15, what="exec is running"
    )
    process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == status
    assert json.loads(out)["error"]["code"] == "interrupted"


@pytest.mark.parametrize("repo", ["empty", "missing", "file"])
def test_a_compose_project_that_is_not_there_leaves_no_record(sandboxer: Command, tmp_path: Path, repo: str) -> None:
    """A failed record stayed, and `reconcile` was 10 until it was destroyed."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("services: {}")
    words = ("create", "--profile", "profile.compose-e2e", "--input", f"repo={repo}", "--host", "local", "--json")
    answer = sandboxer(*words)
    assert (answer.status, "sandbox_id" in answer.error) == (2, False)
    assert sandboxer("list", "--all", "--json").document == {"sandboxes": []}
    assert sandboxer("reconcile", "--apply").status == 0


def test_what_a_key_gave_before_is_given_also_when_its_input_has_gone(sandboxer: Command, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    words = ("create", *FAKE, "--input", "tree=tree", "--idempotency-key", "k", "--json")
    made = sandboxer(*words).document["id"]
    (tmp_path / "tree").rmdir()
    assert sandboxer(*words).document["id"] == made


@pytest.mark.parametrize("profile", ["profile.saas-stub", "profile.native"])
def test_a_home_that_no_record_could_hold_is_refused_before_anything_is_made(tmp_path: Path, profile: str) -> None:
    """The work directory is below it. A record and directories were made first, and nothing said what to set."""
    home = os.fsdecode(os.fsencode(tmp_path) + b"/n\xff")
    sandboxer = Command(tmp_path, more={"HOME": home})
    (tmp_path / "config" / "config.yaml").unlink()
    sandboxer("credits", "add", "10")
    answer = sandboxer("create", "--profile", profile, "--json")
    assert (answer.status, answer.error["code"]) == (2, "invalid"), answer
    assert "HOME" in answer.error["hint"]
    assert "work_dir" in answer.error["hint"]
    assert sandboxer("list", "--all", "--json").document == {"sandboxes": []}
    assert not Path(home).exists()


@pytest.mark.parametrize("variable", ["SANDBOXER_STATE_HUB_URL", "SANDBOXER_FIN_HUB_URL"])
@pytest.mark.parametrize("address", ["hub.example.org", "ftp://hub", "http://me:s3cret@hub", "http://a b"])
def test_an_address_of_a_hub_that_cannot_be_used_is_told_at_once(
    sandboxer: Command, tmp_path: Path, variable: str, address: str
) -> None:
    """Only `events flush` told it."""
    answer = sandboxer("create", *FAKE, "--json", **{variable: address})  # type: ignore[arg-type]
    assert (answer.status, answer.error["code"]) == (2, "invalid")
    assert variable in answer.error["message"]
    assert "s3cret" not in answer.stdout + answer.stderr
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("wrong", ["yaml", "JSON", " json"])
def test_a_format_that_there_is_not_is_refused(sandboxer: Command, wrong: str) -> None:
    """It was ignored, and a program got a table."""
    answer = sandboxer("create", *FAKE, SANDBOXER_OUTPUT=wrong)
    assert (answer.status, answer.stdout) == (2, "")
    assert "SANDBOXER_OUTPUT" in answer.stderr
    assert sandboxer("exec", "box", "--", "true", SANDBOXER_OUTPUT=wrong).status == 125
    assert sandboxer("list", "--all", SANDBOXER_OUTPUT="text").stdout.startswith("no sandboxes")
    assert sandboxer("list", "--all", SANDBOXER_OUTPUT="").stdout.startswith("no sandboxes")
