"""What strangers write, changed at random: the readers answer, or say what is wrong with it.

30 seconds in all in `make check`, by count and from the same seed each time; an hour in `make soak`, from a new one."""

from __future__ import annotations

import os
import random

import pytest

from sandboxer.errors import Invalid
from tests.fuzz.engine import Found, Target, attempt, fuzz, targets

SOAK = bool(os.environ.get("SANDBOXER_SOAK"))
TARGETS = list(targets())
SOAK_SECONDS = 3600 / len(TARGETS)
SEED = random.SystemRandom().randrange(1 << 32) if SOAK else 6


@pytest.mark.timeout(SOAK_SECONDS + 600 if SOAK else 180)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_reader_bears_whatever_it_is_given(target: Target) -> None:
    found = fuzz(target, seed=SEED, inputs=None if SOAK else target.inputs, seconds=SOAK_SECONDS if SOAK else None)
    assert found is None, f"{found} (seed {SEED})"


@pytest.mark.parametrize(
    ("target", "fault"), [(target, fault) for target in TARGETS for fault in target.faults],
    ids=lambda value: value if isinstance(value, str) else value.name,
)  # fmt: skip
def test_a_fault_in_a_reader_is_found(target: Target, fault: str) -> None:
    """With as many inputs as `make check` tries."""
    faulty = Target(target.name, target.faults[fault], target.seeds, target.tokens)
    found = fuzz(faulty, seed=6, inputs=target.inputs)
    assert found is not None
    assert attempt(faulty.run, found.data)[1] is not None, "and its input shows it again"


def test_each_kind_of_document_has_a_target() -> None:
    assert {"archives", "compose", "dockerfiles", "documents", "gitignore", "framing"} <= {
        target.name for target in TARGETS
    }
    for target in TARGETS:
        assert target.seeds


def test_an_input_is_made_shorter() -> None:
    def run(data: bytes) -> None:
        if b"bad" in data:
            raise KeyError("bad")
        raise Invalid("no")

    found = fuzz(Target("x", run, [b"a long text with a bad word in it" * 20]), seed=1, inputs=1)
    assert isinstance(found, Found)
    assert found.data == b"bad"


def test_the_same_seed_tries_the_same() -> None:
    def tried() -> list[bytes]:
        seen: list[bytes] = []
        fuzz(Target("x", seen.append, [b"abc", b"def"]), seed=3, inputs=50)
        return seen

    assert tried() == tried()
    assert len(set(tried())) > 20
