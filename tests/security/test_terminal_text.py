"""No text of a stranger steers a terminal, or hides or turns what it shows: in JSON, tables, errors, progress."""

from __future__ import annotations

import io
import json
import sys
import unicodedata
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.api.problem_details import encode
from sandboxer.cli import output
from sandboxer.cli.progress import Progress
from sandboxer.errors import BackendError
from sandboxer.store.base import Change
from sandboxer.terminal_text import json_safe, shown, shown_lines
from tests.api.serving import serving
from tests.cli.running import Command
from tests.installations import create, installed

HOSTILE = (
    "a\x1b]0;title\x07b\x1b[2Jc\x9b31md\x90e\x85f\x7fg\u202eh\u2066i\u2069j\u200ek\u200fl\u061cm\u2028n\u2029o\ufeffp"
    "\u200bq\U000e0041r\rs"
)
EXCUSED = "\n\t"
INVISIBLE = frozenset(
    chr(number)
    for first, last in ((0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0xFFF9, 0xFFFB), (0xE0000, 0xE0FFF))
    for number in range(first, last + 1)
) | {"\u061c", "\ufeff"}
"""What turns text around or takes no room, in any version of Unicode."""


def steering(text: str) -> list[str]:
    """The characters in a text that a terminal would obey, or not show."""
    return [
        f"U+{ord(char):04X}"
        for char in text
        if char not in EXCUSED and (char in INVISIBLE or unicodedata.category(char) in ("Cc", "Zl", "Zp"))
    ]


@pytest.fixture
def planted(tmp_path: Path) -> str:
    """The id of a sandbox whose record holds such a text wherever others may have put one."""
    here = installed(tmp_path)
    record = create(here)
    said = {"code": "backend_error", "message": HOSTILE, "hint": HOSTILE, "retryable": None, "outcome": "failed"}
    hostile = msgspec.structs.replace(
        record,
        labels={"a": HOSTILE},
        inputs={"greeting": HOSTILE},
        error=said,
        report={"version": 1, "host": {"hostname": HOSTILE}, "isolation": {"holds": [HOSTILE], "unknown": [HOSTILE]}},
        isolation=msgspec.structs.replace(record.isolation, notes=(HOSTILE,)) if record.isolation else None,
    )
    here.manager.services.store.update(record.id, lambda _current, _others: Change(record=hostile))
    return record.id


@pytest.mark.parametrize("words", [("get", "{id}"), ("list",), ("list", "--json"), ("get", "{id}", "--json")])
def test_what_others_wrote_is_shown_and_not_obeyed(tmp_path: Path, planted: str, words: tuple[str, ...]) -> None:
    answer = Command(tmp_path)(*(word.format(id=planted) for word in words))
    assert answer.status == 0, answer
    assert steering(answer.stdout + answer.stderr) == []
    if "--json" in words:
        found = answer.document.get("sandboxes", [answer.document])[0]
        assert found["labels"] == {"a": HOSTILE}, "and it means what it meant"


def test_the_api_answers_without_them_too(tmp_path: Path, planted: str) -> None:
    with serving(installed(tmp_path)) as served:
        for path in (f"/v1/sandboxes/{planted}", "/v1/sandboxes", "/v1/sandboxes/%E2%80%AE%C2%9B"):
            answer = served.get(path)
            assert answer.body
            assert steering(answer.body) == []
        assert json.loads(served.get(f"/v1/sandboxes/{planted}").body)["labels"] == {"a": HOSTILE}


@pytest.mark.parametrize("as_json", [True, False])
def test_an_error_says_what_others_said_harmlessly(capfdbinary: pytest.CaptureFixture[bytes], as_json: bool) -> None:
    error = BackendError(f"the engine said: {HOSTILE}", hint=HOSTILE, details={HOSTILE: [HOSTILE]})
    output.complain(error, as_json=as_json)
    said = b"".join(capfdbinary.readouterr()).decode()
    assert "the engine said" in said
    assert steering(said) == []


def test_lines_tables_and_facts_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(f"one\ntwo {HOSTILE}")
    output.note(HOSTILE)
    output.table(["A", "STATE"], [[HOSTILE, HOSTILE]], empty="")
    output.facts([("name", HOSTILE)])
    out, err = capsys.readouterr()
    assert out.startswith("one\ntwo a")
    assert steering(out + err) == []


class Terminal(io.StringIO):
    """Where colours and progress are wanted."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_only_our_own_colours_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    output.say(output.paint("good", "32") + f" \x1b[8mhidden\x1b[2J {HOSTILE}")
    assert out.getvalue().startswith("\x1b[32mgood\x1b[0m \\x1b[8mhidden\\x1b[2J a")
    with Progress(quiet=False) as progress:
        progress("provision", f"pulling {HOSTILE}\nnext")
    rest = err.getvalue()
    for ours in ("\r\x1b[K", *(f"\x1b[{code}m" for code in ("32", "36", "0"))):
        rest = rest.replace(ours, "")
    assert "pulling a" in rest
    assert steering(rest) == []


@given(st.dictionaries(st.text(max_size=5), st.text() | st.lists(st.text(), max_size=3), max_size=3))
def test_any_document_keeps_its_meaning(document: dict[str, object]) -> None:
    for text in (json_safe(json.dumps(document, ensure_ascii=False)), encode(document).decode()):
        assert json.loads(text) == document
        assert steering(text) == []


@given(st.text())
def test_any_text_is_shown_on_its_lines(text: str) -> None:
    assert steering(shown(text)) == []
    assert not set(EXCUSED) & set(shown(text))
    assert steering(shown_lines(text)) == []
    assert shown_lines(text).count("\n") == text.count("\n")


def test_letters_of_every_script_stay() -> None:
    for text in ("Zoë", "東京", "שלום", "مرحبا", "👩", "naïve café", "🇩🇪"):
        assert shown(text) == json_safe(text) == text
