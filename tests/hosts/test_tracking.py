"""Finding and ending sessions, and never the wrong one."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.hosts.process import tracking
from sandboxer.timing import Deadline
from tests.testbed.waiting import eventually


@given(name=st.binary(max_size=15).filter(lambda name: b"\0" not in name))
def test_a_process_cannot_hide_its_session_behind_its_name(name: bytes) -> None:
    stat = b"7 (%s) S 1 7 42 0 -1 4194304 1 0 0 0 1 1 0 0 20 0 1 0 123456 1 1 1\n" % name
    assert tracking.parse_stat(7, stat) == tracking.ProcessStat(7, session=42, start=123456, alive=True)


def test_records_are_read_back_and_other_files_are_none() -> None:
    recorded = tracking.SessionRecord(12, 345, "b00t-1d")
    assert tracking.parse_record(tracking.record_name(recorded)) == recorded
    for name in ("x", "12", "12.345", "12.x.y", ".1.2", ""):
        assert tracking.parse_record(name) is None


@pytest.fixture
def sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sh", "-c", "sleep 600 & sleep 600"], start_new_session=True)


def record(track: Path, leader: int, *, start: int = 0, boot: str | None = None) -> Path:
    found = tracking.process(leader)
    assert found is not None
    path = track / tracking.record_name(tracking.SessionRecord(leader, found.start + start, boot or tracking.boot_id()))
    path.touch()
    return path


def test_a_recorded_session_is_ended_as_a_whole(tmp_path: Path, sleeper: "subprocess.Popen[bytes]") -> None:
    def members() -> list[tracking.ProcessStat]:
        return [p for p in tracking.processes() if p.session == sleeper.pid and p.alive]

    eventually(lambda: len(members()) == 3, within=60, what="the sleeps")
    path = record(tmp_path, sleeper.pid)
    assert tracking.end_recorded(tmp_path, Deadline(5)) == 1
    assert sleeper.wait(5) in (-9, 137)  # the shell may notice its sleep's end before its own
    assert members() == []
    assert not path.exists()


@pytest.mark.parametrize(("start", "boot"), [(1, None), (-1, None), (0, "another-boot")])
def test_a_number_that_was_given_to_another_process_is_left_alone(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]", start: int, boot: str | None
) -> None:
    record(tmp_path, sleeper.pid, start=start, boot=boot)
    assert tracking.end_recorded(tmp_path, Deadline(5)) == 0
    assert sleeper.poll() is None
    assert list(tmp_path.iterdir()) == []
    os.killpg(sleeper.pid, 9)
    sleeper.wait(5)


def test_a_missing_directory_records_nothing(tmp_path: Path) -> None:
    assert tracking.end_recorded(tmp_path / "none", Deadline(5)) == 0
