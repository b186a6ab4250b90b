"""What a package defines is not hidden by a module of the same name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src" / "sandboxer"


def defined(package: Path) -> Iterator[str]:
    """The functions, classes and values that a package's own file makes or takes from elsewhere."""
    dotted = ".".join(("sandboxer", *package.relative_to(ROOT).parts))
    for node in ast.parse((package / "__init__.py").read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.ImportFrom):
            # from the module of its name is in order: that is imported before the name is set, and never again
            names = [alias.asname or alias.name for alias in node.names]
            yield from (name for name in names if node.module not in (dotted, f"{dotted}.{name}"))


def test_no_module_takes_the_place_of_what_its_package_defines() -> None:
    """The first import of a module sets its name in the package: `selfcheck.run` was a function once, and a module from
    the second canary of a server on."""
    hidden = {
        f"{package.relative_to(ROOT.parent)}/{name}"
        for package in (file.parent for file in ROOT.rglob("__init__.py"))
        for name in defined(package)
        if (package / f"{name}.py").is_file() or (package / name / "__init__.py").is_file()
    }
    assert hidden == set()
