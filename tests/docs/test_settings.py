"""Settings, keys and variables: what the pages name, and what the code reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args, get_origin

import msgspec
import pytest

from sandboxer.extensions.base import CAPABILITIES
from sandboxer.models import InputSpec, Manifest, PriceTable, Profile, SecretRef, Settings, TtlSpec
from tests.docs.pages import ROOT, bare, blocks, pages, shown, table, tables

PAGE = ROOT / "docs" / "meta-framework.md"
_VARIABLE = re.compile(r"\bSANDBOXER_[A-Z_]+\b")
_OF_TESTS = {"SANDBOXER_SOAK", "SANDBOXER_LIVE"}
_MARKS = {"SANDBOXER_ENV_", "SANDBOXER_HOLDER", "SANDBOXER_EXEC"}
"""Put on processes by us and found there again; nobody sets them."""


_APART = {PriceTable, SecretRef}


def _keys(model: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(model)}


def _named(*heading: str) -> set[str]:
    return {bare(row[0]) for row in table(PAGE, *heading).rows}


def _dotted(model: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    """The keys of a model; below a mapping they are of any NAME. Price tables and secrets have tables of their own."""
    for field in msgspec.structs.fields(model):
        name = f"{prefix}{field.encode_name}"
        below = [inner for inner in (field.type, *get_args(field.type)) if inner not in _APART and _is_model(inner)]
        if not below:
            yield name
        for inner in below:
            yield from _dotted(inner, f"{name}.NAME." if get_origin(field.type) is dict else f"{name}.")


def _is_model(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, msgspec.Struct)


def test_the_settings_table_is_the_model() -> None:
    (found,) = [found for found in tables(PAGE.read_text()) if bare(found.rows[0][0]).startswith("hosts.")]
    documented = {name.strip() for row in found.rows for name in bare(row[0]).split(",")}
    assert documented == set(_dotted(Settings))


def test_the_tables_of_keys_are_the_models() -> None:
    by_first_key = {bare(found.rows[0][0]): found for found in tables(PAGE.read_text()) if found.heading[0] == "key"}
    assert {"id", "hosts.NAME.address"} == set(by_first_key)
    both = [found for found in tables(PAGE.read_text()) if found.heading[0] == "key" and bare(found.rows[0][0]) == "id"]
    assert [{bare(row[0]) for row in found.rows} for found in both] == [_keys(Profile), _keys(Manifest)]
    assert _named("`ttl` key") == _keys(TtlSpec)
    assert _named("`inputs.NAME` key") == _keys(InputSpec)
    assert _named("`prices` key") == _keys(PriceTable)


def test_the_defaults_in_the_tables_are_the_models() -> None:
    for found in tables(PAGE.read_text()):
        model: type[TtlSpec] | type[InputSpec]
        if found.heading[0] == "`ttl` key":
            model = TtlSpec
        elif found.heading[0] == "`inputs.NAME` key":
            model = InputSpec
        else:
            continue
        defaults = {field.encode_name: field.default for field in msgspec.structs.fields(model)}
        for name, default, _ in found.rows:
            told = {"null": None, "true": True, "false": False, '""': ""}.get(bare(default), bare(default))
            assert told == defaults[bare(name)], name


def test_capabilities_are_named() -> None:
    text = PAGE.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("Capabilities (")]
    assert re.findall(r"`(\w+)`", line) == list(CAPABILITIES)


@cache
def _read_by_the_code() -> frozenset[str]:
    """Names of ours that stand alone in a string: that is how a variable is read. A sentence about one is longer."""
    found: set[str] = set()
    files = [file for file in (ROOT / "src").rglob("*.py") if "testing" not in file.parts]
    for file in files:
        if "SANDBOXER_" not in (text := file.read_text()):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _VARIABLE.fullmatch(node.value):
                found.add(node.value)
    return frozenset(found - _MARKS)


def test_every_variable_that_is_read_is_documented_and_the_other_way_round() -> None:
    rows = table(PAGE, "variable", "meaning").rows
    documented = {name for row in rows for name in _VARIABLE.findall(row[0])}
    assert documented == _read_by_the_code()


@pytest.mark.parametrize("page", pages(), ids=shown)
def test_no_page_names_a_variable_that_nobody_reads(page: Path) -> None:
    named = set(_VARIABLE.findall(page.read_text()))
    assert named <= _read_by_the_code() | _OF_TESTS


def test_the_examples_of_configuration_are_read_without_complaint() -> None:
    from sandboxer.config.catalog import check_manifest, check_profile
    from sandboxer.config.yaml_document import parse

    seen = 0
    for page in pages():
        for block in blocks(page.read_text(), "yaml"):
            source, raw = shown(page), block.encode()
            seen += 1
            if block.startswith("id: profile."):
                check_profile(parse(raw, Profile, source=source), source)
            elif block.startswith("id: ext."):
                check_manifest(parse(raw, Manifest, source=source), source)
            else:
                parse(raw, Settings, source=source)
    assert seen >= 6
