"""Nothing but an error of ours leaves the loader, whatever it is given."""

import random

import pytest

from tests.extensions.compose.loader.fuzz import fuzzed
from tests.extensions.compose.loader.generated import SERVICE, Trees
from tests.sizes import scaled

pytestmark = pytest.mark.timeout(scaled(180, soak=7200))

_SCALARS = [
    "a", "''", "~", "1", "-1", "1.5", "true", "yes", "${A}", "${A:?x}", "$", "'${'", "!reset x", "!override x", "a:b",
    "./a", "/a:/b:ro", "80:80", "'[::1]:1:1'", "1m30s", "64m", "*x", "&x y", "'\\ud800'", ".inf", "2001-01-01",
    "service:a",
]  # fmt: skip
_KEYS = [
    *sorted(SERVICE), "services", "networks", "volumes", "secrets", "configs", "include", "extends", "name", "file",
    "path", "service", "source", "target", "type", "test", "<<", "x-a", "a", "b", "1", "''", "content", "external",
    "ipam", "config", "driver_opts", "context", "args", "label_file", "post_start", "develop", "watch", "gpus",
]  # fmt: skip


class _Wild:
    """Values that no author would write."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a repeatable sequence, nothing secret

    def mapping(self, depth: int = 3) -> str:
        keys = self._random.sample(_KEYS, self._random.randint(0, 4))
        return "{" + ", ".join(f"{key}: {self.value(depth)}" for key in keys) + "}"

    def value(self, depth: int = 3) -> str:
        tag = self._random.choice(["", "", "", "", "", "!override ", "!reset ", "&x "])
        kind = self._random.random()
        if depth and kind < 0.35:
            return tag + self.mapping(depth - 1)
        if depth and kind < 0.6:
            items = [self.value(depth - 1) for _ in range(self._random.randint(0, 3))]
            return tag + "[" + ", ".join(items) + "]"
        return self._random.choice(_SCALARS)

    def lines(self) -> str:
        """Keys of a service; some have the value of another."""
        keys = self._random.sample(sorted(SERVICE), self._random.randint(1, 5))
        known = [value for key in self._random.sample(sorted(SERVICE), 3) for value in SERVICE[key]]
        return "".join(
            f"    {key}: {self._random.choice(known) if self._random.random() < 0.3 else self.value()}\n"
            for key in keys
        )

    def data(self, most: int) -> bytes:
        return self._random.randbytes(self._random.randint(0, most))


def test_any_value_behind_any_key_of_a_service_is_taken_or_refused() -> None:
    for seed in range(scaled(1500, soak=20_000)):
        wild = _Wild(seed)
        second = f"services:\n  w:\n{wild.lines()}" if seed % 2 else ""
        fuzzed(f"services:\n  w:\n    image: a\n{wild.lines()}\0{second}\0A=1\n".encode())


def test_any_document_on_top_of_any_other_is_taken_or_refused() -> None:
    for seed in range(scaled(500, soak=20_000)):
        wild = _Wild(seed)
        fuzzed(f"{wild.mapping(4)}\0{wild.mapping(4)}\0".encode())


def test_any_bytes_are_taken_or_refused() -> None:
    for seed in range(scaled(500, soak=20_000)):
        wild = _Wild(seed)
        variables = wild.data(100)
        fuzzed(wild.data(300))
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
