"""Tables that say what the code does."""

from __future__ import annotations

import tomllib

from sandboxer.cli.table import COMMANDS, GROUPS
from sandboxer.errors import TREE
from sandboxer.state import State, advance, allowed
from tests.docs.pages import ROOT, bare, table, tables

# Contract §3: the exit status and the HTTP status of each code. Changing one breaks whoever is written against it.
CONTRACT = {
    "internal": (1, 500), "invalid": (2, 422), "not_found": (3, 404), "conflict": (4, 409), "unsupported": (5, 501),
    "not_configured": (6, 424), "backend_error": (7, 502), "unavailable": (8, 503), "insufficient_credits": (9, 402),
    "partial": (10, 207), "denied": (11, 403), "store_corrupt": (13, 500), "timeout": (124, 504),
}  # fmt: skip


def test_the_codes_are_those_of_the_contract() -> None:
    found = {error.code: (error.exit_code, error.http_status) for error in TREE if error.code != "interrupted"}
    assert found == CONTRACT


def test_the_error_table_is_the_error_tree() -> None:
    rows = table(ROOT / "docs" / "errors.md", "exit", "code", "HTTP").rows
    documented = {bare(code): (int(status), int(http)) for status, code, http, _ in rows if code}
    assert documented == {error.code: (error.exit_code, error.http_status) for error in TREE}


def test_the_state_table_is_the_code() -> None:
    rows = table(ROOT / "docs" / "meta-framework.md", "state", "accepts", "becomes").rows
    documented = {(bare(state), bare(signal), bare(after)) for state, signal, after in rows}
    code = {
        (str(state), str(signal), str(advance(state, signal)))
        for state in State
        if state != State.ACTIVE
        for signal in allowed(state)
    }
    assert documented == code


def test_the_layer_table_is_the_one_that_is_enforced() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    (enforced,) = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    assert [bare(row[0]) for row in table(ROOT / "AGENTS.md", "layer").rows] == enforced


def test_every_layer_has_modules() -> None:
    package = ROOT / "src" / "sandboxer"
    names = [name for row in table(ROOT / "AGENTS.md", "layer").rows for name in bare(row[0]).split(" | ")]
    assert [name for name in names if not (package / name).is_dir() and not (package / f"{name}.py").is_file()] == []


def test_the_readme_names_every_command() -> None:
    (listed,) = [found for found in tables((ROOT / "README.md").read_text()) if found.heading[0] == "command"]
    named = {name.strip() for row in listed.rows for name in bare(row[0]).split(",")}
    offered = {name for name in COMMANDS if not name.startswith("_")}
    offered |= {f"{group} {name}" for group, (_, commands) in GROUPS.items() for name in commands}
    assert named == offered
