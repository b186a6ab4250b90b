"""One meaning a word: no two public classes below `src` share a name."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "sandboxer"


def doubles(modules: Mapping[str, str]) -> dict[str, list[str]]:
    """Names of public classes at the top of two modules or more (path -> text), with their paths."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path, text in sorted(modules.items()):
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(path)
    return {name: paths for name, paths in places.items() if len(paths) > 1}


def test_no_two_public_classes_share_a_name() -> None:
    modules = {str(path.relative_to(SOURCE)): path.read_text() for path in SOURCE.rglob("*.py")}
    assert len(modules) > 200
    assert doubles(modules) == {}


def test_a_double_is_noticed() -> None:
    modules = {"a.py": "class Health: ...\nclass _Seen: ...", "b/c.py": "class Health: ...\nclass _Seen: ..."}
    assert doubles(modules) == {"Health": ["a.py", "b/c.py"]}
