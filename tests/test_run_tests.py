"""The runner of the tests tells what always fails from what failed once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

_RUNNER = Path(__file__).parents[1] / "scripts" / "run_tests"
_ENDS = "import os\ndef test_ends(): os._exit(0)\n"
_DIES = "import os\ndef test_dies(): os.abort()\n"
_OTHERS = {f"test_{letter}.py": "def test_other(): pass\n" for letter in "bcdef"}
_ALONE = "import pytest\npytestmark = pytest.mark.alone\n"
_WAITS = """
import time
from pathlib import Path
here = Path(__file__).parent
def eventually(name, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not (here / name).exists():
        time.sleep(0.02)
    return (here / name).exists()
"""
_BESIDE = (
    _WAITS
    + """
def test_one():
    (here / "one").touch()
    assert eventually("two", 60)
def test_two():
    (here / "two").touch()
    assert eventually("one", 60)
"""
)
_NOT_BESIDE = (
    _ALONE
    + """
from pathlib import Path
running = Path(__file__).with_name("running")
def test_nothing_runs_beside_it():
    running.mkdir()
    for _ in range(100_000):
        pass
    running.rmdir()
"""
)
_GROUPED = """
import os
import pytest
pytestmark = pytest.mark.xdist_group("together")
seen = []
@pytest.mark.parametrize("at", ["x@y", "z"])
def test_one_process(at):
    seen.append(at)
    assert len(seen) == 2 or at == "x@y"
"""
_FLAKY = """
from pathlib import Path
def test_second_time():
    seen = Path(__file__).with_suffix(".seen")
    before = seen.exists()
    seen.touch()
    assert before
"""
_ENDS_ONCE = _FLAKY.replace("assert before", "before or __import__('os')._exit(0)")
_GROUP_FLAKY = f"import pytest\npytestmark = pytest.mark.xdist_group('some')\n{_FLAKY}"


def _run(project: Path, files: dict[str, str], asked: Sequence[str] | None = None) -> tuple[int, str]:
    (project / "scripts").mkdir()
    shutil.copy(_RUNNER, project / "scripts")
    (project / "pytest.ini").write_text("[pytest]\n")
    for name, text in files.items():
        (project / name).write_text(text)
    words = [sys.executable, str(project / "scripts" / "run_tests"), *(files if asked is None else asked)]
    # of all the plugins only the one that matters: the others take a second in each process
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin"}
    done = subprocess.run(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=150)
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
        pytest.param({"test_a.py": _ENDS, **_OTHERS}, 1, "did not come to its end", id="silent end"),
        pytest.param({"test_a.py": _DIES, **_OTHERS}, 1, "did not come to its end", id="a worker dies"),
        pytest.param({"test_a.py": _ALONE + _ENDS}, 1, "did not come to its end", id="silent end, alone"),
        pytest.param({"test_a.py": _ALONE + _DIES}, 1, "did not come to its end", id="pytest dies"),
        pytest.param({"test_a.py": _ENDS_ONCE}, 1, "did not come to its end", id="silent end, the first time only"),
        pytest.param({"test_a.py": "import os\nos._exit(0)"}, 1, "did not come to its end", id="end while collecting"),
        pytest.param({"test_a.py": "test_a = 1"}, 1, "no test ran", id="no test"),
        pytest.param({"test_a.py": _BESIDE}, 0, "2 passed", id="side by side"),
        pytest.param({"test_a.py": _NOT_BESIDE, "test_b.py": _NOT_BESIDE}, 0, "2 passed", id="alone"),
        pytest.param({"test_a.py": _GROUPED}, 0, "2 passed", id="a group stays together"),
        pytest.param({"test_a.py": _GROUP_FLAKY}, 0, "flaky:\n  test_a.py::test_second_time\n", id="flaky in a group"),
    ],
)
def test_what_failed_once_is_named_and_what_always_fails_is_red(
    tmp_path: Path, files: dict[str, str], status: int, said: str
) -> None:
    code, text = _run(tmp_path, files)
    assert code == status, text
    assert said in text


def test_the_slowest_are_told_and_the_number_that_ran(tmp_path: Path) -> None:
    slow = "import time\ndef test_slow(): time.sleep(0.3)\n"
    _, text = _run(tmp_path, {"test_a.py": slow, "test_b.py": "def test_quick(): pass"})
    table = text.partition("slowest 25:\n")[2].splitlines()
    assert table[0].endswith(" s  test_a.py::test_slow")
    assert table[2].startswith("2 tests (0 skipped) in ")


def test_what_starts_engines_is_left_out_unless_it_is_asked_for(tmp_path: Path) -> None:
    marked = "import pytest\n@pytest.mark.engines\ndef test_engine(): pass\n"
    files = {"test_a.py": marked, "test_b.py": "def test_plain(): pass"}
    for words, ran in (((), "test_plain"), (("--engines",), "test_engine"), (("test_a.py",), "test_engine")):
        project = tmp_path / f"project{len(ran)}{len(words)}{'-'.join(words)}"
        project.mkdir()
        code, text = _run(project, files, words)
        assert code == 0, text
        assert [line.partition("::")[2] for line in text.splitlines() if " s  test_" in line] == [ran]
