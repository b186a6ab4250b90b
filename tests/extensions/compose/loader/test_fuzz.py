"""Nothing but an error of ours leaves the loader, whatever it is given."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.extensions.compose.loader.fuzz import fuzzed
from tests.extensions.compose.loader.generated import SERVICE, Trees
from tests.sizes import scaled

_SCALARS = st.sampled_from(
    ["a", "''", "~", "1", "-1", "1.5", "true", "yes", "${A}", "${A:?x}", "$", "${", "!reset", "!override x", "a:b",
     "./a", "/a:/b:ro", "80:80", "[::1]:1:1", "1m30s", "64m", "*x", "&x y", "<<", "'\\ud800'", ".inf", "2001-01-01",
     "service:a"]
)  # fmt: skip
_KEYS = st.sampled_from(
    [*sorted(SERVICE), "services", "networks", "volumes", "secrets", "configs", "include", "extends", "name", "file",
     "path", "service", "source", "target", "type", "test", "<<", "x-a", "a", "b", "1", "''", "content", "external",
     "ipam", "config", "driver_opts", "context", "args", "label_file", "post_start", "develop", "watch", "gpus"]
)  # fmt: skip


def _mapping(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(_KEYS, children), max_size=5, unique_by=lambda pair: pair[0])
    return pairs.map(lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items) + "}")


def _values() -> st.SearchStrategy[str]:
    return st.recursive(
        _SCALARS,
        lambda children: st.one_of(
            _mapping(children), st.lists(children, max_size=4).map(lambda items: "[" + ", ".join(items) + "]")
        ),
        max_leaves=12,
    )


@settings(max_examples=scaled(400, soak=20_000), deadline=None)
@given(st.dictionaries(_KEYS, _values(), max_size=6), st.sampled_from(["", "services: {a: {image: a}}\n"]))
def test_any_value_behind_any_key_of_a_service_is_taken_or_refused(body: dict[str, str], more: str) -> None:
    lines = "".join(f"    {key}: {value}\n" for key, value in body.items())
    fuzzed(f"services:\n  w:\n    image: a\n{lines}".encode() + b"\0" + more.encode() + b"\0A=1\n")


@settings(max_examples=scaled(200, soak=10_000), deadline=None)
@given(_mapping(_values()), _mapping(_values()))
def test_any_document_on_top_of_any_other_is_taken_or_refused(first: str, second: str) -> None:
    fuzzed(first.encode() + b"\0" + second.encode() + b"\0")


@settings(max_examples=scaled(200, soak=10_000), deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused(data: bytes, variables: bytes) -> None:
    fuzzed(data)
    fuzzed(b"services: {w: {image: a, env_file: c.env}}\0\0" + variables + b"\0\0" + variables)


def test_files_with_bytes_changed_are_taken_or_refused() -> None:
    chance = random.Random(6)  # noqa: S311 - a repeatable sequence, nothing secret
    for seed in range(scaled(60, soak=3000)):
        tree = Trees(seed).tree()
        data = bytearray(tree["compose.yaml"].encode())
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(data))
            data[place : place + chance.randint(0, 3)] = chance.choice(
                [b"", b"[", b"{", b": ", b"\n", b"*a", b"&a ", b"'", b"${", b"\xff", b"!reset ", b"- ", b"<<: "]
            )
        fuzzed(bytes(data) + b"\0" + tree.get("compose.override.yaml", "").encode() + b"\0" + tree[".env"].encode())
