"""The same tests as an ordinary user, with the bundled bubblewrap, and with one that is too old."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.extensions.native.other_users import USER, run_tests

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become others; an ordinary user is tested by itself"
)

THE_MOST = ["test_conformance.py", "test_isolation.py", "test_lifecycle.py", "test_limits.py", "test_stop.py"]
"""What depends on who runs it; services and copies are the same for all."""


def _passed(output: str) -> int:
    found = re.search(r"(\d+) passed", output)
    return int(found[1]) if found else 0


def test_isolation_and_life_cycle_hold_for_an_ordinary_user_too(tmp_path: Path) -> None:
    done = run_tests(THE_MOST, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" in done.stdout, "root's own tests are skipped: it was another user"
    assert _passed(done.stdout) > 90


@pytest.mark.parametrize(("uid", "said"), [(0, ""), (USER, "bwrap: Unknown option --disable-userns")])
def test_where_the_hosts_bubblewrap_is_missing_or_too_old_ours_is_brought(tmp_path: Path, uid: int, said: str) -> None:
    other = tmp_path / "other"
    other.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    other.chmod(0o755 if said else 0o644)  # what cannot be executed is not there
    (tmp_path / "files").mkdir()
    tests = ["test_lifecycle.py::test_a_stopped_sandbox_is_started_again_by_exec_with_its_workspace"]
    done = run_tests(tests, tmp_path / "files", uid=uid, masks={"/usr/bin/bwrap": other})
    assert done.returncode == 0, done.stdout + done.stderr
    assert _passed(done.stdout) == 2


def test_a_host_that_forbids_namespaces_is_not_configured_and_the_hint_says_what_to_do(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace, likely because ...' >&2\nexit 1\n"
    )
    other.chmod(0o755)
    (tmp_path / "files").mkdir()
    tests = ["test_isolation.py::test_the_doctor_finds_nothing_to_complain_of"]
    done = run_tests(tests, tmp_path / "files", masks={"/usr/bin/bwrap": other})
    assert done.returncode == 1
    assert "NotConfigured: the host does not allow new namespaces" in done.stdout
