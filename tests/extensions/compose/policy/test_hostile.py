"""Compose projects that would reach the host: each is refused, for the right key."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxer.errors import Denied, Invalid, NotFound
from sandboxer.extensions.compose_ssh.policy import ComposeProgram
from tests.extensions.compose.policy.corpora import Case, cases, judged, loaded, verdict_on

CASES = cases("hostile.txt")
JUDGED = [case for case in CASES if case.path != "@loader"]


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", JUDGED, ids=lambda case: case.name)
def test_a_hostile_file_is_refused_with_its_path_and_its_grant_for_each_program(case: Case, tmp_path: Path) -> None:
    project = loaded(case.lay_out(tmp_path))
    for program in ComposeProgram:
        verdict = verdict_on(project, tmp_path, program=program)
        assert verdict.document == {}
        assert (case.path, case.grant) in {(found.path, found.grant) for found in verdict.violations}, program
        assert all(found.line > 0 and found.file and found.gives_away for found in verdict.violations)


@pytest.mark.parametrize("case", [case for case in CASES if case.path == "@loader"], ids=lambda case: case.name)
def test_a_file_outside_is_refused_before_the_gate(case: Case, tmp_path: Path) -> None:
    case.lay_out(tmp_path)
    with pytest.raises((Denied, Invalid, NotFound)):
        loaded(tmp_path)


@pytest.mark.parametrize("case", [case for case in JUDGED if case.grant], ids=lambda case: case.name)
def test_the_grant_that_a_refusal_names_allows_it(case: Case, tmp_path: Path) -> None:
    root = case.lay_out(tmp_path)
    wanted = {found.grant for found in judged(root).violations if found.grant}
    verdict = judged(root, grants=wanted)
    assert case.path not in {found.path for found in verdict.violations}
