"""Every `sandboxer ...` that a page shows can be typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from sandboxer.cli.commands import COMMANDS, GROUPS, build
from tests.docs.pages import blocks, pages, shown, spans

_STARTS = re.compile(r"^(?:\S+ \* \* \* \* )?(sandboxer(?: .*)?)$")


def _shown_commands(text: str) -> Iterator[list[str]]:
    for block in blocks(text, "sh", "bash", "console"):
        for line in block.splitlines():
            if match := _STARTS.match(line.strip()):
                yield shlex.split(match[1], comments=True)
    for span in spans(text):
        if match := _STARTS.match(span):
            yield shlex.split(match[1])


EXAMPLES = [
    pytest.param(words, id=f"{shown(page)}: {shlex.join(words)}")
    for page in pages()
    for words in _shown_commands(page.read_text())
    if len(words) > 1
]


@cache
def _command(verb: str, sub: str | None) -> Any:
    program: Any = build([verb] if sub is None else [verb, sub])
    command = program.commands[verb]
    return command if sub is None else command.commands[sub]


def complaint(words: list[str]) -> str | None:
    """What is wrong with a command line, or None. `...` stands for what a reader fills in."""
    verb, *rest = words[1:]
    if verb == "--version":
        return None
    sub = None
    if verb in GROUPS:
        if not rest:
            return None  # only the group is spoken of
        sub, *rest = rest
        if sub not in GROUPS[verb][1]:
            return f"there is no {verb} {sub}"
    elif verb not in COMMANDS:
        return f"there is no {verb}"
    command = _command(verb, sub)
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    own = rest[: rest.index("--")] if "--" in rest else rest
    unknown = [word for word in own if word.startswith("-") and word.partition("=")[0] not in {*known, "--help"}]
    return f"{verb} has no {unknown[0]}" if unknown else None


@pytest.mark.parametrize("words", EXAMPLES)
def test_every_command_in_the_documents_exists_with_its_options(words: list[str]) -> None:
    assert complaint(words) is None


def test_the_check_sees_what_cannot_be_typed() -> None:
    assert complaint(["sandboxer", "fly"]) == "there is no fly"
    assert complaint(["sandboxer", "events", "burn"]) == "there is no events burn"
    assert complaint(["sandboxer", "create", "--wings"]) == "create has no --wings"


def test_every_option_of_create_is_one_of_the_contract() -> None:
    contract = {
        "--profile", "--input", "--ttl", "--host", "--name", "--label", "--actor", "--idempotency-key", "--timeout",
        "--dry-run", "--no-wait", "--keep-failed", "--json",
    }  # fmt: skip
    offered = {name for parameter in _command("create", None).params for name in parameter.opts}
    assert contract <= offered
    offered = {name for parameter in _command("run", None).params for name in parameter.opts}
    assert contract | {"--keep", "-i", "-t"} <= offered


def test_every_example_is_looked_at() -> None:
    assert len(EXAMPLES) > 60
