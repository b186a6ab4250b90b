"""What people read: the names that they gave, no structure of programs, and no more than it takes."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

import pytest

from sandboxer.cli.host_report import bar
from tests.cli.running import Command


@pytest.fixture
def sandboxer(tmp_path: Path) -> Command:
    return Command(tmp_path)


def test_inspect_host_tells_a_host_in_words(sandboxer: Command) -> None:
    answer = sandboxer("inspect", "host")
    assert answer.status == 0, answer.stderr
    facts, _, sandboxes = answer.stdout.partition("\n\n")
    told = dict(line.split(maxsplit=1) for line in facts.splitlines())
    assert sandboxes == "none of our sandboxes is there\n"
    assert told["host"] == "local"
    assert re.fullmatch(r"[\d.]+ GiB free of [\d.]+ GiB \[#*-*\] \d+%", told["memory"])
    assert re.search(r"load [\d.]+ \[#*-*\] \d+%$", told["processors"])
    assert "{" not in answer.stdout


@pytest.mark.parametrize(
    ("used", "total", "shown"),
    [
        (0, 8, " [----------] 0%"),
        (4, 10, " [####------] 40%"),
        (3.0, 2, " [##########] 150%"),  # a load over its processors
        (-1, 10, " [----------] 0%"),
        (1, 0, ""),
        (1, None, ""),
    ],
)
def test_a_bar_shows_the_share_that_is_in_use(used: float, total: object, shown: str) -> None:
    assert bar(used, total) == shown


def test_a_copy_that_cannot_be_put_somewhere_names_the_place(sandboxer: Command) -> None:
    assert sandboxer("create", "--profile", "profile.fake", "--name", "box").status == 0
    assert sandboxer("exec", "box", "--", "sh", "-c", "echo a > a").status == 0
    answer = sandboxer("cp", "box:a", "/proc/a", "--json")
    assert answer.status != 0
    assert "/proc" in answer.error["message"]
    assert ".sandboxer" not in answer.error["message"]


def test_who_works_here_is_known_without_a_variable_that_says_it(tmp_path: Path) -> None:
    sandboxer = Command(tmp_path, more={"USER": "", "LOGNAME": ""})
    assert sandboxer("expire", "--apply").status == 0
    (line,) = sandboxer("audit", "list", "--json").document["audit"]
    assert line["actor"] == f"adm:{pwd.getpwuid(os.getuid()).pw_name}"


def test_tokens_and_times_are_listed_briefly(sandboxer: Command) -> None:
    for name, words in {"day": ("--ttl", "30d"), "ever": (), "gone": ()}.items():
        assert sandboxer("tokens", "create", name, "--role", "admin", *words).status == 0
    assert sandboxer("tokens", "revoke", "gone").status == 0
    rows = [line.split() for line in sandboxer("tokens", "list").stdout.splitlines()[1:]]
    assert {row[1]: row[-1] for row in rows} == {"day": "29d23h59m", "ever": "never", "gone": "-"}
    times = [line.split()[0] for line in sandboxer("audit", "list").stdout.splitlines()[1:]]
    assert all(re.fullmatch(r"[\d-]{10}T[\d:]{8}Z", time) for time in times)


def test_serve_and_doctor_say_which_token_of_the_configuration_is_not_there(sandboxer: Command) -> None:
    config = sandboxer.root / "config" / "config.yaml"
    config.write_text(config.read_text() + "api: {tokens: [{name: ops, ref: 'env:NOT_SET', role: admin}]}\n")
    answer = sandboxer("serve", "--port", "0", "--json")
    assert answer.status == 6
    assert "api.tokens.ops" in answer.error["message"]
    (finding,) = [one for one in sandboxer("doctor", "--json").document["findings"] if one["subject"] == "tokens"]
    assert finding["level"] == "warning"
    assert "NOT_SET" in finding["text"]


def test_a_grant_that_is_none_is_told_with_its_profile_and_line(sandboxer: Command) -> None:
    file = sandboxer.root / "config" / "profiles" / "profile.shop.yaml"
    file.write_text(
        "id: profile.shop\nversion: 1.0.0\nextension: ext.compose-ssh\nttl: {default: 1h}\n"
        'options: {grants: ["bind:/srv/../etc"]}\n'
    )
    answer = sandboxer("profiles", "validate", "--json")
    assert answer.status == 2
    assert answer.error["message"].startswith(f"{file}, line 5: ")
    assert "bind:/srv/../etc" in answer.error["message"]
