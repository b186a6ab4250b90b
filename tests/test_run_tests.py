"""The runner of the tests tells what always fails from what failed once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_RUNNER = Path(__file__).parents[1] / "scripts" / "run_tests"
_FLAKY = """
from pathlib import Path
def test_second_time():
    seen = Path(__file__).with_suffix(".seen")
    before = seen.exists()
    seen.touch()
    assert before
"""


def _run(project: Path, files: dict[str, str]) -> tuple[int, str]:
    (project / "scripts").mkdir()
    shutil.copy(_RUNNER, project / "scripts")
    (project / "pytest.ini").write_text("[pytest]\n")
    for name, text in files.items():
        (project / name).write_text(text)
    words = [sys.executable, str(project / "scripts" / "run_tests"), *files]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=150)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("files", "status", "said"),
    [
        pytest.param({"test_a.py": "def test_a(): pass"}, 0, "1 passed", id="all pass"),
        pytest.param({"test_a.py": "def test_a(): assert False"}, 1, "failed twice:\n  test_a.py::test_a", id="red"),
        pytest.param({"test_a.py": _FLAKY}, 0, "flaky:\n  test_a.py::test_second_time", id="flaky"),
        pytest.param({f"test_{k}.py": _FLAKY for k in "abcd"}, 1, "flaky:", id="too many are flaky"),
        pytest.param({"test_a.py": _FLAKY, "test_b.py": "def test_b(): assert False"}, 1, "flaky:", id="both"),
        pytest.param({"test_a.py": "import nothing_of_that_name"}, 1, "nothing_of_that_name", id="cannot be collected"),
        pytest.param(
            {"test_a.py": "import os\ndef test_a(): os._exit(0)"}, 1, "did not come to its end", id="silent end"
        ),
        pytest.param(
            {"test_a.py": "import os\ndef test_a(): os.abort()"}, 1, "did not come to its end", id="pytest dies"
        ),
    ],
)
def test_what_failed_once_is_named_and_what_always_fails_is_red(
    tmp_path: Path, files: dict[str, str], status: int, said: str
) -> None:
    code, text = _run(tmp_path, files)
    assert code == status, text
    assert said in text
