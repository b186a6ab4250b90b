"""The attacks on native sandboxes again as an ordinary user, here and over SSH, where bubblewrap is that user's own."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.extensions.native.other_users import USER, run_tests


@pytest.mark.timeout(900)  # a whole file of tests, on a machine that may be busy
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others; an ordinary user is tested by itself")
def test_the_attacks_fail_for_an_ordinary_users_sandboxes_too(tmp_path: Path) -> None:
    users = tmp_path / "passwd"
    users.write_text(f"{Path('/etc/passwd').read_text()}sandboxes:x:{USER}:{USER}::/mnt/home:/bin/sh\n")
    nothing = tmp_path / "nothing"
    nothing.touch(0o644)  # what cannot be executed is not there: ours is brought, and belongs to the user
    files = tmp_path / "files"
    files.mkdir()
    masks = {"/etc/passwd": users, "/usr/bin/bwrap": nothing}
    done = run_tests(["test_native.py"], files, masks=masks, folder=Path(__file__).parent, seconds=800)
    assert done.returncode == 0, done.stdout + done.stderr
    passed, skipped = (re.search(rf"(\d+) {word}", done.stdout) for word in ("passed", "skipped"))
    assert passed is not None
    assert int(passed[1]) > 30, done.stdout
    assert skipped is None, done.stdout
