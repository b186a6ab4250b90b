"""Describe a row of the key table, and make the tree of the rows."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Literal

import msgspec

from sandboxer.extensions.compose_ssh.policy.gate import KeyCheck

Support = Literal["yes", "no", "ignored"]
"""Whether a program has a key. Without one that only tunes, the file means nearly the same: `ignored` leaves it out
with a note; all others are `no`, and the file is not run."""


class Treatment(enum.StrEnum):
    """What is done with a key."""

    ALLOWED = "allowed"
    CHECKED = "checked"
    CAPPED = "capped"
    GRANTED = "granted"
    REWRITTEN = "rewritten"
    LEFT_OUT = "left out"
    REFUSED = "refused"


class Key(msgspec.Struct, frozen=True):
    """A key of the compose specification: `path` with `*` for any name and `[]` for any index."""

    path: str
    decision: Treatment
    take: KeyCheck | None
    why: str
    v1: Support = "yes"
    podman: Support = "yes"


class Node:
    """A place in a document: what may be there."""

    __slots__ = ("any", "item", "key", "keys")

    def __init__(self) -> None:
        self.key: Key | None = None
        self.keys: dict[str, Node] = {}
        self.any: Node | None = None
        self.item: Node | None = None


def key_tree(keys: Iterable[Key]) -> Node:
    """The table as a tree."""
    root = Node()
    for key in keys:
        node = root
        for part in key.path.replace("[]", ".[]").split("."):
            if part == "*":
                node.any = node.any or Node()
                node = node.any
            elif part == "[]":
                node.item = node.item or Node()
                node = node.item
            else:
                node = node.keys.setdefault(part, Node())
        if node.key is not None:
            raise ValueError(f"{key.path} is in the table twice")
        node.key = key
    return root
