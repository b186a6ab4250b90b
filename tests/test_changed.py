"""The tests of what a change touches."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[1] / "scripts" / "changed"
_FILES = {
    "pyproject.toml": "",
    "README.md": "",
    "docs/a.md": "",
    "profiles/p.yaml": "",
    "scripts/run": "",
    "src/sandboxer/__init__.py": "",
    "src/sandboxer/store/__init__.py": "",
    "src/sandboxer/store/base.py": "",
    "src/sandboxer/store/note.json": "{}",
    "src/sandboxer/manager/__init__.py": "from sandboxer.store import base",
    "src/sandboxer/cli/__init__.py": "import sandboxer.manager",
    "src/sandboxer/timing.py": "",
    "src/sandboxer/lonely.py": "",
    "src/sandboxer/extensions/__init__.py": "",
    "src/sandboxer/extensions/compose_ssh/__init__.py": "",
    "src/sandboxer/extensions/compose_ssh/create.py": "",
    "tests/__init__.py": "",
    "tests/conftest.py": "",
    "tests/records.py": "from sandboxer.store import base",
    "tests/test_timing.py": "import sandboxer.timing",
    "tests/store/__init__.py": "",
    "tests/store/test_files.py": "# by its name",
    "tests/manager/__init__.py": "",
    "tests/manager/test_manager.py": "import sandboxer.manager",
    "tests/cli/__init__.py": "",
    "tests/cli/test_cli.py": "import sandboxer.cli",
    "tests/payments/__init__.py": "",
    "tests/payments/test_records.py": "from tests import records",
    "tests/docs/__init__.py": "",
    "tests/docs/test_pages.py": "# scripts/run is mentioned",
    "tests/config/__init__.py": "",
    "tests/config/test_catalog.py": "",
    "tests/extensions/__init__.py": "",
    "tests/extensions/compose/__init__.py": "",
    "tests/extensions/compose/test_lifecycle.py": "",
    "tests/extensions/compose/stack.yaml": "",
}
STORE = ["tests/manager/test_manager.py", "tests/payments/test_records.py", "tests/store/test_files.py"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one, as it was committed."""
    root = tmp_path_factory.mktemp("project")
    for name, text in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    shutil.copy(_SCRIPT, root / "scripts" / "changed")
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words], cwd=root, check=True)
    return root


def changed(project: Path) -> tuple[list[str], str]:
    """What is printed, and what is told."""
    words = [sys.executable, str(project / "scripts" / "changed")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize(
    ("path", "tests"),
    [
        ("src/sandboxer/store/base.py", STORE),
        ("src/sandboxer/store/note.json", ["tests/store/test_files.py"]),
        ("src/sandboxer/manager/__init__.py", ["tests/cli/test_cli.py", "tests/manager/test_manager.py"]),
        ("src/sandboxer/timing.py", ["tests/test_timing.py"]),
        ("src/sandboxer/extensions/compose_ssh/create.py", ["tests/extensions/compose/test_lifecycle.py"]),
        ("src/sandboxer/lonely.py", ["tests"]),
        ("tests/records.py", ["tests/payments/test_records.py"]),
        ("tests/cli/test_cli.py", ["tests/cli/test_cli.py"]),
        ("tests/extensions/compose/stack.yaml", ["tests/extensions/compose/test_lifecycle.py"]),
        ("tests/conftest.py", ["tests"]),
        ("docs/a.md", ["tests/docs/test_pages.py"]),
        ("README.md", ["tests/docs/test_pages.py"]),
        ("profiles/p.yaml", ["tests/config/test_catalog.py", "tests/docs/test_pages.py"]),
        ("scripts/run", ["tests/docs/test_pages.py"]),
        ("pyproject.toml", ["tests"]),
        ("new/thing", ["tests"]),
    ],
)
def test_a_change_runs_what_is_near_it(project: Path, path: str, tests: list[str]) -> None:
    file = project / path
    before = file.read_bytes() if file.exists() else None
    file.parent.mkdir(exist_ok=True)
    file.write_text("# changed\n")
    try:
        chosen, told = changed(project)
    finally:
        file.unlink() if before is None else file.write_bytes(before)
    assert chosen == tests, told
    assert "1 files differ" in told


def test_what_reaches_it_from_farther_away_is_counted(project: Path) -> None:
    file = project / "src/sandboxer/store/base.py"
    file.write_text("# changed\n")
    try:
        assert "1 more reach the changes from farther away" in changed(project)[1]
    finally:
        file.write_text("\n")


def test_a_deleted_file_is_a_change_too(project: Path) -> None:
    file = project / "src/sandboxer/store/base.py"
    file.unlink()
    try:
        assert "tests/store/test_files.py" in changed(project)[0]
    finally:
        file.write_text("\n")


def test_nothing_changed_is_no_test(project: Path) -> None:
    assert changed(project)[0] == []
