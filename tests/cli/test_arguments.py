"""Where the words of a command line may stand, and what is said when some are missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sandboxer.cli.arguments import move_json_option
from tests.cli.running import Command


@pytest.fixture
def sandboxer(tmp_path: Path) -> Command:
    return Command(tmp_path)


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ("--json list", "list --json"),
        ("--json list --json", "list --json --json"),
        ("--json profiles list", "profiles list --json"),
        ("profiles --json show profile.native", "profiles show --json profile.native"),
        ("--json exec web -- list --json", "exec --json web -- list --json"),
        ("exec web -- sh --json", "exec web -- sh --json"),
        ("list --json", "list --json"),
        ("--json", ""),
        ("--json bogus", "bogus --json"),
        ("--json profiles", "profiles"),
        ("profiles --json", "profiles"),
        ("--json profiles bogus", "profiles bogus --json"),
        ("--json -- list", "--json -- list"),
        ("", ""),
    ],
)
def test_json_ahead_of_a_command_belongs_to_the_command(given: str, understood: str) -> None:
    assert move_json_option(given.split(), {"profiles"}) == understood.split()


@pytest.mark.parametrize("words", [("--json", "list"), ("list", "--json"), ("--json", "list", "--json")])
def test_json_may_be_asked_for_before_and_after_the_verb(sandboxer: Command, words: tuple[str, ...]) -> None:
    answer = sandboxer(*words)
    assert (answer.status, answer.document) == (0, {"sandboxes": []})


def test_json_before_the_verb_holds_for_groups_errors_and_exec(sandboxer: Command) -> None:
    assert sandboxer("--json", "credits", "show").document["currency"] == "USD"
    assert sandboxer("credits", "--json", "show").document["currency"] == "USD"
    refused = sandboxer("--json", "get", "nobody")
    assert (refused.status, refused.error["code"]) == (3, "not_found")
    failed = sandboxer("--json", "exec", "nobody", "--", "true")
    assert (failed.status, failed.error["code"]) == (125, "not_found")
    unknown = sandboxer("--json", "bogus")
    assert (unknown.status, unknown.error["code"]) == (2, "invalid")


@pytest.mark.parametrize("words", [(), ("profiles",), ("inspect",)])
def test_no_command_shows_help_and_an_error_document_to_programs(sandboxer: Command, words: tuple[str, ...]) -> None:
    shown = sandboxer(*words)
    assert (shown.status, shown.stderr) == (0, "")
    assert shown.stdout.startswith("Usage: sandboxer")
    for refused in (sandboxer(*words, "--json"), sandboxer(*words, SANDBOXER_OUTPUT="json")):
        assert (refused.status, refused.error["message"]) == (2, "Missing command.")


def test_the_version_is_a_document_for_programs(sandboxer: Command) -> None:
    version = sandboxer("--version").stdout.split()[1]
    assert sandboxer("--version", "--json").document == {"version": version}
    assert sandboxer("--json", "--version").document == {"version": version}
    assert sandboxer("--version", SANDBOXER_OUTPUT="json").document == {"version": version}


def test_an_option_that_exec_does_not_know_is_pointed_behind_the_dashes(sandboxer: Command) -> None:
    answer = sandboxer("exec", "web", "ls", "-l")
    assert answer.status == 125
    assert "--" in answer.stderr
    assert "sandboxer exec ID -- CMD" in answer.stderr


def test_an_option_without_its_value_names_the_help_of_its_command(sandboxer: Command) -> None:
    assert "`sandboxer create --help`" in sandboxer("create", "--ttl").stderr
    assert "`sandboxer profiles show --help`" in sandboxer("profiles", "show").stderr


def test_two_dashes_ahead_of_the_command_change_nothing(sandboxer: Command) -> None:
    """They made it do nothing, with exit status 0."""
    assert sandboxer("--", "list").stdout == sandboxer("list").stdout != ""


def test_the_help_of_the_whole_does_without_typer(sandboxer: Command) -> None:
    """Start-up is a feature: typer takes longer than all of the rest."""
    program = (
        "import sys; from sandboxer.cli.main import main; main(sys.argv[1:]); sys.exit(int('typer' in sys.modules))"
    )
    for words in (["--help"], [], ["--version"], ["nonsense"]):
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, words


def test_completion_knows_every_command(sandboxer: Command) -> None:
    answer = sandboxer(_SANDBOXER_COMPLETE="complete_bash", COMP_WORDS="sandboxer tokens ", COMP_CWORD="2")
    assert answer.stdout.split() == ["create", "list", "revoke"]
    assert "--install-completion" in sandboxer("--help").stdout
