"""Compose projects as people have them: all pass, and each program takes what is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxer.extensions.compose_ssh.loader import dump
from sandboxer.extensions.compose_ssh.policy import ComposeProgram
from tests.extensions.compose.policy.compose_programs import program_of, refused_by
from tests.extensions.compose.policy.corpora import Case, cases, judged, loaded, verdict_on

CASES = cases("honest.txt")


def lacking(case: Case, program: ComposeProgram) -> bool:
    """Whether the case uses a key that the program does not have."""
    return str(program) in [name.strip() for name in (case.grant or "").split(",")]


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_honest_file_passes_or_is_told_what_its_program_lacks(case: Case, tmp_path: Path) -> None:
    project = loaded(case.lay_out(tmp_path))
    for program in ComposeProgram:
        verdict = verdict_on(project, tmp_path, program=program)
        assert verdict.violations == ()
        assert bool(verdict.unsupported) == lacking(case, program), verdict.unsupported
        assert bool(verdict.document.get("services")) != lacking(case, program)


@pytest.mark.parametrize("case", cases("granted.txt"), ids=lambda case: case.name)
def test_what_wants_something_of_the_host_names_the_grants_that_make_it_work(case: Case, tmp_path: Path) -> None:
    wanted = {word.strip() for word in case.path.split(",")}
    root = case.lay_out(tmp_path)
    assert {one.grant for one in judged(root).violations} == wanted
    verdict = judged(root, grants=wanted)
    assert verdict.violations == ()
    assert verdict.document["services"]


@pytest.mark.parametrize("program", ComposeProgram)
def test_each_program_takes_every_honest_file_as_it_is_sent(program: ComposeProgram, tmp_path: Path) -> None:
    words = program_of(program)
    if words is None:
        pytest.skip(f"{program} is not here")
    sent = []
    for number, case in enumerate(case for case in CASES if not lacking(case, program)):
        root = case.lay_out(tmp_path / f"repository{number}")
        # docker-compose v1 looks whether contexts are there
        pristine = case.lay_out(tmp_path / f"pristine{number}")
        verdict = judged(root, program=program, directory=str(root), pristine=str(pristine))
        sent.append(tmp_path / f"{number}-{case.name.replace(' ', '_')}.yaml")
        sent[-1].write_bytes(dump(verdict.document))
    assert refused_by(program, words, sent) == {}


def test_a_program_that_refuses_is_seen(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("services: {a: {image: nginx, ports: [{target: []}]}}")
    for program in ComposeProgram:
        words = program_of(program)
        if words is not None:
            assert list(refused_by(program, words, [wrong])) == ["wrong.yaml"]
