"""The attacks again as an ordinary user who was made for it, here and over SSH, where bubblewrap is that user's own."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.extensions.native.other_users import USER, run_tests

TESTS = Path(__file__).parents[1]
AGAIN = {
    "native": (["security/test_native.py", "security/test_native_bounds.py"], 40),
    "paths": (["security/test_races.py", "security/test_swapped_paths.py", "security/test_strict_modes.py"], 40),
    "documents": (
        [
            "security/test_document_bounds.py",
            "security/test_hostile_answers.py",
            "security/test_hostile_archives.py",
            "security/test_terminal_text.py",
            "hosts/test_globs.py",
            "hosts/test_gitignore.py",
        ],
        150,
    ),
    "the API": (["api/test_connections.py", "api/test_framing.py", "cli/test_naming.py"], 100),
}
"""What is run, by what is attacked, and how many pass at least: each does what it does as root, but what only root can
lay out."""


@pytest.mark.timeout(900)  # whole files of tests, on a machine that may be busy
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others; an ordinary user is tested by itself")
@pytest.mark.parametrize("attacked", AGAIN)
def test_the_attacks_fail_for_an_ordinary_user_too(tmp_path: Path, attacked: str) -> None:
    tests, least = AGAIN[attacked]
    users = tmp_path / "passwd"
    users.write_text(f"{Path('/etc/passwd').read_text()}sandboxes:x:{USER}:{USER}::/mnt/home:/bin/sh\n")
    nothing = tmp_path / "nothing"
    nothing.touch(0o644)  # what cannot be executed is not there: ours is brought, and belongs to the user
    files = tmp_path / "files"
    files.mkdir()
    masks = {"/etc/passwd": users, **({"/usr/bin/bwrap": nothing} if attacked == "native" else {})}
    done = run_tests(tests, files, masks=masks, folder=TESTS, seconds=800)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= least, done.stdout
    assert attacked != "native" or "skipped" not in done.stdout, done.stdout
