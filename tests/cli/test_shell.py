"""shell and ssh, as they are typed."""

from __future__ import annotations

import shutil

import pytest

from sandboxer.manager.ssh.workspace import consumer_argv
from sandboxer.models import HostSettings, Reachability
from tests.cli.running import Command


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """An installation with a sandbox called box."""
    here = Command(tmp_path_factory.mktemp("box"))
    assert here("create", "--profile", "profile.fake", "--name", "box").status == 0
    return here


def test_a_shell_without_a_terminal_runs_what_it_reads_and_answers_its_code(box: Command) -> None:
    said = box("shell", "box", stdin=b"echo in $((1+1)) >&2; pwd\nexit 7\n")
    assert said.status == 7, said.stderr
    assert said.stderr == "in 2\n"
    assert said.stdout.endswith("/workspace\n")


def test_ssh_of_a_local_sandbox_is_in_its_workspace(box: Command) -> None:
    said = box("ssh", "box", "--", "sh", "-c", 'pwd; printf "%s|" "$@"; exit 9', "sh", "a b", "$HOME", ";")
    assert said.status == 9, said.stderr
    where, rest = said.stdout.split("\n")
    assert where.endswith("/workspace")
    assert rest == "a b|$HOME|;|"


@pytest.mark.parametrize("path", ["", ".", "bin"])
def test_ssh_starts_no_shell_that_lies_in_the_workspace(box: Command, path: str) -> None:
    """What is inside writes there, and this is outside: a PATH that leads to where one is must not make it ours."""
    for name in ("sh", "bin/sh"):
        planted = f"mkdir -p bin; printf '#!/bin/sh\\necho planted\\n' >{name}; chmod +x {name}"
        assert box("exec", "box", "--", "sh", "-c", planted).status == 0
    said = box("ssh", "box", stdin=b"echo ours\n", PATH=f"{path}:{box.environment['PATH']}", SHELL="/bin/sh")
    assert (said.status, said.stdout) == (0, "ours\n"), said.stderr


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (("--json", "shell", "box"), ""),
        (("shell", "--json", "box"), ""),
        (("shell", "box"), "json"),
        (("--json", "ssh", "box", "--", "sh"), ""),
        (("ssh", "box", "--json", "--", "sh"), ""),
        (("ssh", "box", "--", "sh"), "json"),
    ],
)
def test_what_is_said_inside_is_one_document(box: Command, words: tuple[str, ...], setting: str) -> None:
    said = box(*words, stdin=b"echo out; echo err >&2; exit 7\n", SANDBOXER_OUTPUT=setting)
    assert said.status == 7, said.stderr
    found = said.document
    assert (found["exit_code"], found["stdout"], found["stderr"]) == (7, "out\n", "err\n")
    assert said.stderr == ""


@pytest.mark.parametrize("verb", ["shell", "ssh"])
def test_a_failure_of_our_own_is_125(box: Command, verb: str) -> None:
    assert box(verb, "nothing-like-it").status == 125
    told = box("--json", verb, "nothing-like-it")
    assert (told.status, told.document["error"]["code"]) == (125, "not_found")


def test_a_workspace_that_is_gone_is_a_failure_of_our_own(box: Command) -> None:
    made = box("create", "--profile", "profile.fake", "--json").document
    shutil.rmtree(made["reachability"]["remote_dir"])
    told = box("ssh", made["id"], "--json", "--", "true")
    assert (told.status, told.error["code"]) == (125, "backend_error")


def test_ssh_words_are_quoted_for_the_shell_on_the_host_and_keys_stay_strict() -> None:
    reached = Reachability(kind="ssh", host="h.example", port=2022, user="ops", remote_dir="/srv/sbx-a b")
    words = consumer_argv(reached, ["echo", "a b", "$(id)"], HostSettings(identity="/k", proxy_jump="gate"), tty=False)
    assert words == [
        "ssh", "-o", "StrictHostKeyChecking=yes", "-T", "-p", "2022", "-i", "/k", "-J", "gate", "-l", "ops", "--",
        "h.example", "cd -- '/srv/sbx-a b' || exit 125; exec echo 'a b' '$(id)'",
    ]  # fmt: skip


def test_entering_is_noted_in_the_audit(box: Command) -> None:
    box("ssh", "box", "--", "true")
    assert '"ssh"' in box("audit", "list", "--json").stdout
