"""What native sandboxes are kept from, here and over SSH: closed calls, a full disk outside, and ways through links."""

from __future__ import annotations

import errno
import json
import platform
from pathlib import Path

import pytest

from sandboxer.errors import Denied, SandboxerError
from sandboxer.extensions.native.seccomp import MACHINES
from sandboxer.manager.copies import copy
from tests.extensions.native.sandboxes import EXTENSION, Bench, Box
from tests.extensions.native.seccomp.closed_calls import AROUND, wanted
from tests.testbed.syscall_filter import program_of_attempts


def copied_out(box: Box, source: str, target: Path, *, max_size: int | None = None) -> copy.CopyReport:
    """Copy out of it, as `cp` does."""
    inside = copy.SandboxFiles(EXTENSION, box.handle, box.bench.context(seconds=120), None)
    return copy.copy_out(source, str(target), inside, max_size=max_size)


@pytest.mark.skipif(platform.machine() not in MACHINES, reason="no filter for this machine")
def test_no_closed_call_is_made_through_exec_and_no_other_entry_leads_in(box: Box) -> None:
    around = AROUND if platform.machine() == "x86_64" else []
    words = ("python3", "-c", program_of_attempts(), "-")
    code, out, err = box.run(*words, stdin=json.dumps([*wanted(), *around]).encode(), seconds=150)
    assert code == 0, err
    told: dict[str, int] = json.loads(out)
    assert len(told) > 60
    assert set(told.values()) == {errno.EPERM, errno.ENOSYS}
    assert {name for name, answer in told.items() if answer == errno.ENOSYS} == {"clone3", *(one[0] for one in around)}


def test_three_gibibytes_of_holes_take_nothing_outside(box: Box, tmp_path: Path) -> None:
    box.sh("mkdir -p d; truncate -s 3G d/holes; echo end >> d/holes")
    copied_out(box, "d", tmp_path / "out")
    assert (tmp_path / "out" / "holes").stat().st_size == (3 << 30) + 4
    assert (tmp_path / "out" / "holes").stat().st_blocks * 512 < 1 << 20


def test_more_than_the_cap_is_refused_while_it_comes_and_leaves_nothing(box: Box, tmp_path: Path) -> None:
    box.sh("mkdir -p big; head -c 20000000 /dev/urandom > big/file")
    with pytest.raises(Denied, match="--max-size"):
        copied_out(box, "big", tmp_path / "out", max_size=1 << 20)
    assert list(tmp_path.iterdir()) == []


def test_links_that_are_planted_lead_no_command_of_ours_outside(bench: Bench, tmp_path: Path) -> None:
    """Neither a copy, in whichever direction, nor what renews and destroys it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("canary")
    (tmp_path / "mine").write_text("mine")
    with bench.box() as box:
        box.sh(f"mkdir d; ln -s {outside} link; ln -s {outside}/file file; ln -s {outside} d/link; ln -s / d/top")
        report = copied_out(box, "d", tmp_path / "out")
        assert (report.left_out, list((tmp_path / "out").iterdir())) == (2, [])
        inside = copy.SandboxFiles(EXTENSION, box.handle, box.bench.context(seconds=120), None)
        for source in ("link", "link/file", "file"):
            with pytest.raises(SandboxerError):
                copied_out(box, source, tmp_path / "got")
        for target in ("file", "link/new", "d/link/"):
            try:
                copy.copy_in(str(tmp_path / "mine"), target, inside)
            except SandboxerError:
                continue
        EXTENSION.renew(box.handle, 2_000_000_100.0, box.bench.context())
    assert not (tmp_path / "got").exists()
    assert [(file.name, file.read_text()) for file in outside.iterdir()] == [("file", "canary")]
