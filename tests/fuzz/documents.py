"""YAML of profiles and settings, and JSON of providers: a mistake of theirs at most."""

from __future__ import annotations

import msgspec

from sandboxer import document_bounds
from sandboxer.config.yaml_document import parse
from sandboxer.errors import Invalid
from sandboxer.http import Response
from sandboxer.models import Profile

INPUTS = 5000
SEEDS = [
    b"id: profile.a\nversion: 1.0.0\ntitle: A\nextension: ext.native\nttl: {default: 1h, max: 4h}\n",
    b"a: &a [1, 2.5, ~, true, 0x1f, 1:30, 2020-01-01]\nb: {<<: *a, c: |\n  d\n}\n",
    b'{"a": [1, -2.5e3, null, true, "\\u00e9\\n"], "b": {"c": {}}}',
    b'[{"id": "x", "labels": {"a": "b"}}, []]',
]
TOKENS = [
    b'{"a":', b"&a ", b"*a", b"<<: ", b"!!int ", b"!!float ", b"!!bool ", b"!!timestamp ", b"!!binary ", b"!!set ",
    b"!!omap ", b"1:", b"0x", b"[", b"]", b"{", b"}", b": ", b"- ", b"? ", b"\n ", b'"', b"'", b"\\u", b"\\ud800",
    b"1e999", b"NaN", b",", b"---\n", b"%",
]  # fmt: skip


def run(data: bytes) -> object:
    """Read it as each of the two. Raises Invalid and BackendError at most."""
    try:
        found = Response(name="Thing", asked="GET /x", status=200, headers={}, body=data).json()
    except document_bounds.LimitExceeded as error:
        raise AssertionError("it was to be told in words") from error
    except Exception as error:
        if type(error).__name__ != "BackendError":
            raise
        parse(data, Profile, source="x")
    else:
        msgspec.json.encode(found)
    return None


def _recursive(data: bytes) -> object:
    """A reader that calls itself for each level, and has room for 900. (How much an interpreter has, others of the
    process move.)"""
    level = 0
    for byte in data:
        level += (byte in b"[{") - (byte in b"]}")
        if level > 900:
            raise RecursionError
    raise Invalid("not JSON")


FAULTS = {"a reader that goes as deep as it is told": _recursive}
