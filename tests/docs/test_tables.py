"""Tables that say what the code does."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

from sandboxer.cli.commands import COMMANDS, GROUPS
from sandboxer.errors import TREE, Partial
from sandboxer.state import State, advance, allowed
from tests.cli.running import Command
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


def test_what_the_error_table_says_of_a_code_that_is_not_raised_is_true() -> None:
    """A code stays "not raised yet" until something makes an error of it; then the row has to say when."""
    rows = table(ROOT / "docs" / "errors.md", "exit", "code", "HTTP").rows
    said = {bare(code) for _, code, _, meaning in rows if code and re.search(r"\bnot raised\b|\byet\b", meaning)}
    assert said == {error.code for error in TREE} - {error.code for error in TREE if error.__name__ in called_names()}


def test_what_the_settings_tables_say_of_one_that_is_not_used_is_true() -> None:
    rows = [row for found in tables((ROOT / "docs" / "meta-framework.md").read_text()) for row in found.rows]
    said = {bare(row[0]) for row in rows if re.search(r"\bnot (used|acted upon)\b", row[-1])}
    readers = "\n".join(
        file.read_text()
        for file in (ROOT / "src" / "sandboxer").rglob("*.py")
        if not {"models", "config"} & set(file.relative_to(ROOT / "src" / "sandboxer").parts)
    )
    names = {name: name.removeprefix("SANDBOXER_").removesuffix("_URL").lower().split(",")[0] for name in said}
    used = {name for name, setting in names.items() if re.search(rf"\.{re.escape(setting)}\b", readers)}
    assert used == set()


def called_names() -> set[str]:
    """The names that are called anywhere in the package but where the errors are: `Timeout(...)`,
    `errors.Timeout(...)`."""
    found: set[str] = set()
    for file in (ROOT / "src" / "sandboxer").rglob("*.py"):
        if file.name == "errors.py":
            continue
        calls = (node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
        for function in calls:
            if isinstance(function, ast.Name):
                found.add(function.id)
            elif isinstance(function, ast.Attribute):
                found.add(function.attr)
    return found


def test_the_exit_statuses_beside_a_document_are_those_of_the_commands(tmp_path: Path) -> None:
    """`doctor` and the others answer with their own document, and the status of the class that fits."""
    rows = table(ROOT / "docs" / "errors.md", "command", "exit", "when").rows
    documented = {(bare(command), int(status)) for command, status, _ in rows}
    sweeps = {(f"{verb} --apply", Partial.exit_code) for verb in ("expire", "reconcile", "reap-stale")}
    sandboxer = Command(tmp_path)
    nobody = "http://127.0.0.1:9"
    seen = {("doctor", sandboxer("doctor", "--json", VAULT_ADDR=nobody).status)}
    sandboxer("create", "--profile", "profile.fake", SANDBOXER_STATE_HUB_URL=nobody)
    seen |= {("events flush", sandboxer("events", "flush", "--json", SANDBOXER_STATE_HUB_URL=nobody).status)}
    (tmp_path / "data" / "sandboxes.json").write_bytes(b"{")
    seen |= {("doctor", sandboxer("doctor", "--json").status)}
    assert documented == sweeps | seen


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
