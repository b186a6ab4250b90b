"""docs/compose-policy.md says what the gate does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import msgspec

from sandboxer.extensions.compose_ssh.policy.grants import FORMS
from sandboxer.extensions.compose_ssh.policy.keys_project import KEYS
from tests.docs.pages import ROOT, bare, blocks, files, table
from tests.extensions.compose.policy.corpora import Case, judged

PAGE: Final = ROOT / "docs" / "compose-policy.md"
_SUPPORT: Final = {"yes": "", "no": "no", "ignored": "left out"}


def test_the_key_table_is_the_one_of_the_code() -> None:
    rows = table(PAGE, "key", "decision", "why", "docker-compose 1.29", "podman-compose 1.6").rows
    documented = {bare(key): (decision, why, v1, podman) for key, decision, why, v1, podman in rows}
    assert len(documented) == len(rows)
    assert documented == {
        key.path: (str(key.decision), key.why, _SUPPORT[key.v1], _SUPPORT[key.podman]) for key in KEYS
    }


def test_the_grants_of_the_page_are_those_of_the_code() -> None:
    assert [bare(row[0]) for row in table(PAGE, "grant", "gives").rows] == list(FORMS)


def test_the_refusal_of_the_page_is_what_the_gate_says(tmp_path: Path) -> None:
    case = Case(name="", files={**files(PAGE), "site/index.html": ""}, links={})
    found = judged(case.lay_out(tmp_path)).violations
    (shown,) = blocks(PAGE.read_text(), "json")
    assert list(msgspec.to_builtins(found)) == json.loads(shown)
