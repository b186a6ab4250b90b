"""The reader of compose projects."""

from __future__ import annotations

from tests.extensions.compose.loader.fuzz import fuzzed as run
from tests.extensions.compose.loader.generated import Trees

INPUTS = 4000
_PARTS = ("compose.yaml", "compose.override.yaml", ".env", "b.yaml", "c.env")


def _tree(seed: int) -> bytes:
    tree = Trees(seed).tree()
    return b"\0".join(tree.get(part, "").encode() for part in _PARTS)


SEEDS = [
    b"services: {w: {image: a}}",
    b"x: &a {b: c}\nservices:\n  w: {<<: *a, image: 'a', ports: ['80:80'], env_file: c.env}\n\0\0A=1\n\0\0B=${A:-x}\n",
    b"include: [b.yaml]\nservices: {w: {extends: {file: b.yaml, service: v}}}\n\0\0\0services: {v: {image: a}}\n",
    *map(_tree, range(12)),
]
TOKENS = [
    b"&a ", b"*a", b"<<: *a", b"!reset ", b"!override ", b"!!int ", b"${A}", b"${A:-", b"${A:?x}", b"$",
    b"services:", b"- ", b"\n  ", b": ", b"{", b"}", b"[", b"]", b"'", b'"', b"|\n", b">-\n", b"#", b"---\n", b"\0",
    b"? ", b"extends: ", b"0x1", b"include: ", b"1:1:1", b"=", b"%YAML 1.1\n", b"\xef\xbb\xbf",
]  # fmt: skip


def _careless(data: bytes) -> object:
    """One that takes every alias to have an anchor."""
    import yaml

    from sandboxer.errors import Invalid

    anchors: dict[str, str] = {}
    try:
        for event in yaml.parse(data.split(b"\0")[0], Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.AliasEvent):
                anchors[str(event.anchor)] += "used"
            elif isinstance(event, yaml.NodeEvent) and event.anchor:
                anchors[event.anchor] = ""
    except yaml.YAMLError as error:
        raise Invalid("not YAML") from error
    return len(anchors)


FAULTS = {"an alias that stands for nothing": _careless}

__all__ = ["FAULTS", "INPUTS", "SEEDS", "TOKENS", "run"]
