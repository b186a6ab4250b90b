"""Compose YAML is read without resolving a scalar, and refused with its line where it is ambiguous or a bomb."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.errors import Invalid, SandboxerError
from sandboxer.extensions.compose_ssh.document import BOUNDS, Plain, dump, load


def read(text: str) -> dict[str, object]:
    return load(text.encode(), name="compose.yaml")


@pytest.mark.parametrize(
    "scalar",
    [
        "yes", "22:22", "0777", "1_000", "1e3", "2024-01-01", "~", "null", "on", "0o17", ".5", "${X:-a b}", "a # b",
        '"yes"', "'22:22'", '"0777"', '"a\\tb"', "'it''s'", '""', '"null"',
    ],
)  # fmt: skip
def test_a_scalar_means_the_same_to_every_reader_after_a_round_trip(scalar: str) -> None:
    before = f"key: {scalar}\n"
    after = dump(read(before)).decode()
    for loader in (yaml.SafeLoader, yaml.BaseLoader):
        assert yaml.load(after, Loader=loader) == yaml.load(before, Loader=loader)  # noqa: S506 - both are safe
    # and whether it was quoted is kept, for readers with rules of their own
    assert after.partition(": ")[2].startswith('"') is (scalar[0] in "\"'")


def test_anchors_and_merge_keys_are_expanded() -> None:
    text = "x: &base {image: a, ports: [80]}\nservices:\n  web: {<<: *base, image: b}\n  db: {<<: [*base, {user: c}]}\n"
    services = read(text)["services"]
    assert services == {
        "web": {"image": "b", "ports": ["80"]},
        "db": {"image": "a", "ports": ["80"], "user": "c"},
    }


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: 1\na: 2\n", r"line 2: the key 'a' is given twice"),
        ("a: [1\nb: 2\n", r"line 2: .*expected"),
        ("a: !reset null\n", r"line 1: the tag !reset"),
        ("a: !!python/object/apply:os.system [id]\n", r"line 1: the tag !!python"),
        ("a: !!binary aGk=\n", r"the tag !!binary"),
        ("a: *nowhere\n", r"alias \*nowhere"),
        ("a: &x [*x]\n", r"alias \*x"),
        ("a: 1\n---\nb: 2\n", r"line 2: a second document"),
        ("? [a, b]\n: c\n", r"a key that is not a word"),
        ("a: {<<: 3}\n", r"`<<` needs a mapping"),
        ("- a\n", r"not a mapping"),
        ("", r"not a mapping"),
        ("a: \x00\n", r"compose.yaml"),
        ("a: " + "[" * (BOUNDS.depth + 1), r"deeper than"),
        ("a: " + "[" * 100_000, r"compose.yaml"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, what: str) -> None:
    with pytest.raises(Invalid, match=what):
        read(text)


def test_a_bomb_of_aliases_is_refused_quickly() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    with pytest.raises(Invalid, match=f"more than {BOUNDS.values}"):
        read("\n".join(levels))


def test_aliases_of_one_long_scalar_and_a_tower_of_them_are_refused() -> None:
    with pytest.raises(Invalid, match="line 2: more than 8388608 characters once aliases are expanded"):
        read("x-a: &a " + "x" * 200_000 + "\nx-b: [" + ",".join(["*a"] * 4000) + "]\n")
    tower = "a0: &a0 {}\n" + "".join(f"a{n}: &a{n} {'[' * 50}*a{n - 1}{']' * 50}\n" for n in range(1, 30))
    with pytest.raises(Invalid, match="line 3: nested deeper than 64 levels, by an alias"):
        read(tower)


def test_a_huge_file_and_one_that_is_not_utf8_are_refused() -> None:
    with pytest.raises(Invalid, match="larger"):
        load(b"a" * (BOUNDS.size + 1), name="x")
    with pytest.raises(Invalid, match="line 2: not UTF-8"):
        load(b"a: 1\nb: \xff\n", name="x")


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_load_or_be_refused(data: bytes) -> None:
    try:
        load(data, name="x")
    except SandboxerError as error:
        assert isinstance(error, Invalid)


VALUES = st.recursive(
    st.text(max_size=12) | st.text(alphabet="abc:-#{}[]&*!%@,?|> '\"0123", max_size=12).map(Plain),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=6), VALUES, min_size=1, max_size=4))
def test_what_is_dumped_is_loaded_as_the_same(document: dict[str, object]) -> None:
    assert load(dump(document), name="x") == document
