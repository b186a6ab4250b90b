"""Who is meant by an id, a prefix or a name, and who asks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from sandboxer.store.base import Change
from tests.cli.running import Command
from tests.installations import installed

FAKE = ("--profile", "profile.fake")


@pytest.fixture
def sandboxer(tmp_path: Path) -> Command:
    return Command(tmp_path)


def test_destroy_by_name_again_is_fine(sandboxer: Command) -> None:
    """Promise 4: `destroy` works again, exit 0."""
    first = sandboxer("create", *FAKE, "--name", "web", "--json").document["id"]
    for _ in range(2):
        gone = sandboxer("destroy", "web", "--json")
        assert (gone.status, gone.document["id"], gone.document["state"]) == (0, first, "destroyed")
    assert sandboxer("get", "web", "--json").document["id"] == first
    used = sandboxer("exec", "web", "--json", "--", "true")
    assert (used.status, used.error["code"]) == (125, "conflict")
    second = sandboxer("create", *FAKE, "--name", "web", "--json").document["id"]
    assert sandboxer("get", "web", "--json").document["id"] == second, "the living one has the name"
    assert sandboxer("destroy", "web", "web", "--json").status == 0
    assert sandboxer("get", "web", "--json").document["id"] == second, "the last one that had it"


def test_a_name_cannot_stand_for_another_by_the_beginning_of_its_id(sandboxer: Command) -> None:
    """A script that destroys by the first characters of an id must not meet a sandbox that somebody named so."""
    living = sandboxer("create", *FAKE, "--json").document["id"]
    for length in (4, 8, 11):
        refused = sandboxer("create", *FAKE, "--name", living[:length], "--json")
        assert (refused.status, refused.error["code"]) == (4, "conflict")
        assert "choose another name" in refused.error["hint"]
    assert sandboxer("create", *FAKE, "--name", living[:4], "--dry-run", "--json").status == 4
    assert sandboxer("create", *FAKE, "--name", living[:3]).status == 0, "three characters are no beginning"
    assert sandboxer("get", living[:4], "--json").document["id"] == living
    assert sandboxer("destroy", living, "--json").status == 0
    assert sandboxer("create", *FAKE, "--name", living[:4]).status == 0, "nobody is hidden any more"


def test_a_text_that_is_a_name_and_the_beginning_of_an_id_means_neither(sandboxer: Command) -> None:
    """The name was there first, or the record is of a version that let it be made."""
    here = installed(sandboxer.root)
    named = sandboxer("create", *FAKE, "--name", "k3v9", "--json").document["id"]
    record = here.manager.get(named)
    other = "k3v9x2m7q4ta"
    renamed = msgspec.structs.replace(record, id=other, name=None)
    here.manager.services.store.update(other, lambda _current, _others: Change(record=renamed))
    for verb, *more in (("get",), ("destroy",), ("exec", "--", "true"), ("extend-ttl", "--duration", "1m")):
        refused = sandboxer(verb, "k3v9", "--json", *more)
        assert refused.error["code"] == "conflict", verb
        assert {f"{named} (its name)", other} <= set(refused.error["message"].partition(": ")[2].split(", "))
        assert "more characters of the id" in refused.error["hint"]
    assert sandboxer("get", "k3v9x", "--json").document["id"] == other
    assert sandboxer("get", named, "--json").document["id"] == named


@pytest.mark.parametrize(
    ("user", "name"), [("DOM\\me", "DOM-me"), ("Ann Lee", "Ann-Lee"), ("zoë", "zo-"), ("_x", "x_x")]
)
def test_whoever_the_operating_system_says_may_create(sandboxer: Command, user: str, name: str) -> None:
    made = sandboxer("create", *FAKE, "--json", USER=user)
    assert made.document["consumer"] == {"actor": "adm", "name": name}


def test_an_actor_that_is_wrong_is_told_by_where_it_comes_from(sandboxer: Command) -> None:
    answer = sandboxer("list", "--json", SANDBOXER_ACTOR="bob")
    assert (answer.status, answer.error["code"]) == (2, "invalid")
    assert "SANDBOXER_ACTOR" in answer.error["message"]
    assert sandboxer("create", *FAKE, "--actor", "", "--json").error["code"] == "invalid", "an empty word is no actor"


def test_on_a_terminal_a_sandbox_that_is_not_there_keeps_no_other_from_going(sandboxer: Command) -> None:
    made = sandboxer("create", *FAKE, "--json").document["id"]
    primary, terminal = os.openpty()
    try:
        done = subprocess.run(
            sandboxer.words("destroy", "nobody", made),
            env=sandboxer.environment, stdin=terminal, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(primary)
        os.close(terminal)
    assert done.returncode == 10, done.stderr
    assert sandboxer("get", made, "--json").document["state"] == "destroyed"


def test_a_filter_that_finds_nothing_does_not_say_that_there_is_nothing(sandboxer: Command) -> None:
    sandboxer("create", *FAKE)
    assert "sandboxer create" not in sandboxer("list", "--label", "a=b").stdout


@pytest.mark.parametrize(("option", "status"), [("--host", 2), ("--profile", 3), ("--name", 2), ("--actor", 2)])
def test_an_empty_word_is_not_taken_for_none(sandboxer: Command, option: str, status: int) -> None:
    """A variable that is not set in somebody's script must not send a sandbox to another place."""
    answer = sandboxer("create", *(FAKE if option != "--profile" else ()), option, "", "--json")
    assert answer.status == status, answer
    assert sandboxer("list", "--all", "--json").document == {"sandboxes": []}


def test_a_lifetime_that_is_too_long_is_told_as_it_would_be_written(sandboxer: Command) -> None:
    assert "4h1s is over the 4h" in sandboxer("create", *FAKE, "--ttl", "14401").stderr
    assert sandboxer("create", *FAKE, "--name", "box", "--ttl", "3h").status == 0
    refused = sandboxer("extend-ttl", "box", "--duration", "2h")
    assert (refused.status, "--duration 1h or less" in refused.stderr) == (2, True)


def test_a_second_token_of_a_name_is_told(sandboxer: Command) -> None:
    """One may take the other's place (docs/api.md); whoever did not mean it has to hear of it."""
    first = sandboxer("tokens", "create", "build", "--role", "admin")
    assert "called build too" not in first.stderr
    token_id = sandboxer("tokens", "list", "--json").document["tokens"][0]["id"]
    second = sandboxer("tokens", "create", "build", "--role", "admin")
    assert (second.status, f"{token_id} is called build too" in second.stderr) == (0, True), second.stderr
    assert sandboxer("tokens", "revoke", "build").status != 0
    assert sandboxer("tokens", "revoke", token_id).status == 0
    assert sandboxer("tokens", "revoke", "build").status == 0
    assert "called build too" not in sandboxer("tokens", "create", "build", "--role", "admin").stderr
