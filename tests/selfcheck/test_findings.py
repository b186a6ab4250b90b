"""The probe's answer comes from inside: whatever it is, it becomes a finding and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxer.errors import BackendError
from sandboxer.models import Isolation
from sandboxer.selfcheck import remote_probe
from sandboxer.selfcheck.claims import checks
from sandboxer.selfcheck.findings import comparable, findings

from .samples import ANSWER, ENVIRONMENT, FACTS, answer, measured

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
CLAIM = Isolation(class_="namespace", network="none")


def judge(raw: dict[str, Any]) -> None:
    found = findings(raw, FACTS, owners={900: 70001}, called=None, environment=ENVIRONMENT)
    assert checks(CLAIM, found)
    assert len(msgspec.json.encode(found)) < 64 * 1024


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(ANSWER)), JSON))
def test_any_answer_is_a_finding(changes: dict[str, Any]) -> None:
    judge(answer(**changes))
    judge(changes)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([k for k, v in ANSWER.items() if isinstance(v, dict)]),
    st.dictionaries(
        st.text(max_size=12) | st.sampled_from(["/", "/root", "seen", "of_host", "CapEff"]), JSON, max_size=4
    ),
)
def test_any_part_of_an_answer_is_a_finding(name: str, part: dict[str, Any]) -> None:
    judge(answer(**{name: {**ANSWER[name], **part}}))


@pytest.mark.parametrize("data", [b"", b"hello", b"[1]", b"null", b'{"nonce": "other"}', b"[" * 100000, b" " * 300000])
def test_what_is_no_answer_of_the_probe_is_refused(data: bytes) -> None:
    with pytest.raises(BackendError) as caught:
        remote_probe.read_answer(data, nonce="n")
    assert "python3 /workspace/.sandboxer" in caught.value.hint


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_an_error(data: bytes) -> None:
    with pytest.raises(BackendError):
        remote_probe.read_answer(data, nonce="n")


def test_text_from_inside_cannot_steer_a_terminal_nor_fill_a_store() -> None:
    found = measured(hostname="\x1b[2J" + "x" * 5000, interfaces=[f"eth{n}" for n in range(1000)])
    assert found.hostname is not None
    assert "\x1b" not in found.hostname
    assert len(found.hostname) <= 200
    assert len(found.interfaces or []) <= 32


def test_the_boundary_is_named_by_what_is_shared() -> None:
    assert measured().boundary == "namespaces"
    assert measured(paths={**ANSWER["paths"], "/usr": {"id": "50:3", "readable": True}}).boundary == "container"
    assert measured(namespaces=dict(FACTS.namespaces)).boundary == "none"
    assert measured(boot_id="another").boundary == "vm"
    assert measured(boot_id=None).boundary == "unknown"


def test_a_planted_name_without_the_planted_text_proves_nothing() -> None:
    assert measured(canary={"seen": "read", "at": "/x", "text": "something else"}).sees_host_files is False


def test_a_place_that_is_only_denied_is_not_seen() -> None:
    assert measured(canary={"seen": "denied", "at": "/root/x"}).sees_host_files is False


def test_who_we_are_on_the_host_is_unknown_without_a_mark() -> None:
    assert measured(mark=12).root_on_host is None
    assert measured(owner=0).root_on_host is True


def test_conventional_variables_are_not_compared() -> None:
    ours = {"PATH": "/bin", "LC_ALL": "C", "HOME": "/root", "API_KEY": "k", "EMPTY": ""}
    assert comparable(ours) == {"API_KEY": "k"}


def test_our_environment_as_a_whole_is_told_from_a_value_that_an_image_shares() -> None:
    assert measured(environment={"GPG_KEY": 222}).host_environment_whole is False
    assert measured(environment=dict(ENVIRONMENT)).host_environment_whole is True
    assert measured(environment={"GPG_KEY": 222}).host_environment == ["GPG_KEY"]
