"""No part of a secret that is long enough to be one is said, in whatever form others say it."""

from __future__ import annotations

import base64
import gc
import html
import json
import random
import time
import weakref
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.errors import BackendError
from sandboxer.masking import PART, masked
from sandboxer.secrets import Secret

VALUE = 'kT7+qz/W4"x\\uN9=Lr2 éV8sYb5%Hc3&Gf6<Jd1'


def said(text: str) -> str:
    """What an error says of a text that quotes something."""
    return BackendError(f"they say: {text} and no more").message


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda value: value,
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 behind a user's name": lambda value: base64.b64encode(b"me:" + value.encode()).decode(),
    "base64 behind one more": lambda value: base64.b64encode(b"you:" + value.encode() + b"?").decode(),
    "base64 behind two more": lambda value: base64.b64encode(b"them:" + value.encode() + b"??").decode(),
    "base64 of URLs": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    "base64 of URLs, shifted": lambda value: base64.urlsafe_b64encode(b"u" + value.encode()).decode(),
    "base64 in lines": lambda value: base64.encodebytes(value.encode() * 3).decode(),
    "hexadecimal": lambda value: value.encode().hex(),
    "hexadecimal in capitals": lambda value: value.encode().hex().upper(),
    "percent signs": lambda value: quote(value, safe=""),
    "percent signs all over": lambda value: "".join(f"%{byte:02X}" for byte in value.encode()),
    "JSON": lambda value: json.dumps(value),
    "JSON with other letters": lambda value: json.dumps(value, ensure_ascii=False),
    "Python": repr,
    "HTML": html.escape,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_no_form_of_a_secret_is_said(form: Callable[[str], str]) -> None:
    key = Secret(VALUE)
    text = form(VALUE)
    told = said(text)
    assert "(secret)" in told
    assert not common(told, text, PART), told
    assert told.startswith("they say: "), "nothing else is lost"
    assert told.endswith(" and no more")
    assert key.reveal()


@pytest.mark.parametrize("length", [PART, 15, 20, 30])
@pytest.mark.parametrize("form", [FORMS["as it is"], FORMS["base64"], FORMS["hexadecimal"]], ids=["plain", "64", "hex"])
def test_neither_end_nor_the_middle_of_a_secret_is_said(form: Callable[[str], str], length: int) -> None:
    value = "".join(random.Random(length).choices("ABCDEFGHijklmnop0123456789", k=48))  # noqa: S311 - no secret
    key = Secret(value)
    for at in range(len(value) - length + 1):
        part = value[at : at + length]
        told = said(form(part))
        assert part not in told
        if length >= 15 or form is FORMS["as it is"]:
            assert not common(told, form(part), PART), (at, told)
    assert key.reveal()


def test_a_secret_that_is_cut_in_lines_is_not_said() -> None:
    key = Secret("A1b2C3d4E5f6G7h8I9j0K1l2M3n4")
    assert "G7h8" not in said("A1b2C3d4E5f6G7\n  h8I9j0K1l2M3n4").replace("h8I", "")
    assert "M3n4" not in said("A1b2C3d4E5f6G7\n  h8I9j0K1l2M3n4")
    assert key.reveal()


def test_a_short_secret_is_masked_as_a_whole_only() -> None:
    key = Secret("pw+12/x")
    assert said("pw+12/x") == "they say: (secret) and no more"
    assert said("cHcrMTIveA==") == "they say: (secret)== and no more"
    assert said("cHcrMTIveA") == "they say: (secret) and no more"
    assert said("pw 12 x, pw+12") == "they say: pw 12 x, pw+12 and no more"
    assert key.reveal()


def test_ordinary_words_stay() -> None:
    keys = [Secret("sk-live-" + "9f8e7d6c5b4a" * 3), Secret("hunter2hunter2")]
    text = "the backend did not answer: connection to 203.0.113.7 port 443 refused (sk-live-key of project hunter)"
    assert said(text) == f"they say: {text} and no more"
    assert all(key.reveal() for key in keys)


def test_two_secrets_side_by_side_are_both_masked() -> None:
    keys = [Secret("first-secret-of-two"), Secret("other-secret-of-two")]
    assert said("first-secret-of-twoother-secret-of-two").count("secret-of") == 0
    assert said("first-secret-of-two x other-secret-of-two") == "they say: (secret) x (secret) and no more"
    assert all(key.reveal() for key in keys)


def test_what_a_secret_is_recognized_by_ends_with_it() -> None:
    key = Secret("ended-secret-value-1")
    assert "ended" not in said("ended-secret-value-1")
    gone = weakref.ref(key)
    del key
    gc.collect()
    assert gone() is None
    assert "ended-secret-value-1" in said("ended-secret-value-1")


@given(value=st.text(min_size=6, max_size=60), around=st.text(max_size=20))
def test_any_value_in_any_text_is_masked(value: str, around: str) -> None:
    key = Secret(value)
    assert len(value) < PART or not common(masked(around + value + around), value, PART)
    assert key.reveal() == value


def test_a_large_text_is_looked_through_once() -> None:
    """A megabyte against ten keys; the times say only that it is not the product of the lengths."""
    keys = [Secret(f"{n:04}" + "k3yM4t3r14l" * 400) for n in range(10)]
    text = "k3yM4t3r14" * 100_000
    begun = time.process_time()
    masked(text)
    assert time.process_time() - begun < 30
    assert all(key.reveal() for key in keys)


def common(told: str, text: str, length: int) -> list[str]:
    """The runs of so many characters that both have."""
    return [text[at : at + length] for at in range(len(text) - length + 1) if text[at : at + length] in told]
