"""Stopped: nothing runs, nothing but a start changes that, and the workspace is as it was."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from sandboxer.errors import BackendError, Conflict
from sandboxer.extensions.native import power, scripts
from sandboxer.extensions.native.handle import from_handle
from sandboxer.models import Handle
from sandboxer.names import MARKER_FILE
from tests.extensions.native.sandboxes import EXTENSION, Bench, Box, over
from tests.testbed.waiting import eventually

ROOT = os.geteuid() == 0


def stop(box: Box, *, seconds: float = 60) -> None:
    EXTENSION.stop(box.handle, box.bench.context(seconds=seconds))


def start(box: Box, until: float | None = 2111111111.0) -> None:
    EXTENSION.start(box.handle, until, box.bench.context(seconds=60))


@contextmanager
def running(box: Box, script: str) -> Iterator[list[tuple[int, bytes, bytes]]]:
    """A command inside that has said `up` in the workspace; how it ended, once the block has."""
    ended: list[tuple[int, bytes, bytes]] = []
    thread = threading.Thread(target=lambda: ended.append(box.run("sh", "-c", script, seconds=120)))
    thread.start()
    eventually((box.directory / "workspace/up").exists, within=60, what="the command to run")
    try:
        yield ended
    finally:
        thread.join(120)


def refused(box: Box) -> Conflict:
    with pytest.raises(Conflict) as caught:
        box.run("true")
    return caught.value


def test_a_stopped_one_keeps_its_workspace_and_loses_tmp(bench: Bench) -> None:
    with bench.box() as box:
        box.sh("echo kept >/workspace/x; echo x >/tmp/x; mkdir -p /tmp/a/.b/c; ln -s /workspace /tmp/l; chmod 0 /tmp/a")
        mode = (box.directory / "tmp").stat()
        old = box.recorded()
        stop(box)
        assert box.presence() == "stopped"
        assert all(over(pid) for pid in old.values())
        assert list((box.directory / "tmp").iterdir()) == []
        now = (box.directory / "tmp").stat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (mode.st_mode, mode.st_uid, mode.st_gid)
        error = refused(box)
        assert (error.hint, error.details) == (f"run `sandboxer start {box.sandbox_id}`", {"presence": "stopped"})
        assert box.presence() == "stopped"
        stop(box)
        start(box)
        assert box.sh("cat /workspace/x; ls -A /tmp; echo y >/tmp/y; cat /tmp/y") == "kept\ny"
        assert json.loads((box.directory / MARKER_FILE).read_text())["sandboxer.expires"] == "2111111111"
        again = box.recorded()
        start(box)
        assert box.recorded() == again, "one that runs is left as it is"
        assert box.sh("cat /tmp/y") == "y"


def test_what_runs_inside_is_asked_to_end_and_has_time_for_it(bench: Bench) -> None:
    ending = "trap 'sleep 0.5; echo ended >>/workspace/said; exit 0' TERM; echo up >/workspace/up; "
    ending += "while :; do sleep 0.1; done"
    service = {"command": ["sh", "-c", ending.replace("/up", "/serving")], "restart": "always"}
    with bench.box(services={"web": service}, settle=0.1) as box:
        eventually((box.directory / "workspace/serving").exists, within=60, what="the service to run")
        with running(box, ending) as ended:
            box.sh(f"nohup sh -c {shlex.quote(ending.replace('/up', '/daemon'))} >/dev/null 2>&1 &")
            eventually((box.directory / "workspace/daemon").exists, within=60, what="the daemon to run")
            stop(box)
        assert ended[0][0] in (0, 137), "it had ended by itself, or was ended with the sandbox just then"
        said = (box.directory / "workspace/said").read_text().split()
        assert said == ["ended"] * 3, "the command, the service, once, and what a command had left behind"
        (box.directory / "workspace/said").unlink()
        (box.directory / "workspace/serving").unlink()
        start(box)
        eventually((box.directory / "workspace/serving").exists, within=60, what="the service to run again")


def test_what_does_not_end_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "GRACE", 0.3)
    with bench.box() as box:
        with running(box, "trap '' TERM; echo up >/workspace/up; while :; do sleep 0.1; done") as ended:
            stop(box)
        assert ended == [(137, b"", b"")]
        assert box.presence() == "stopped"


def test_who_asks_is_not_held_up_by_what_runs_inside(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is inside may stop whoever asks it to end."""
    monkeypatch.setattr(power, "GRACE", 0.5)
    with bench.box() as box:
        hostile = (
            "trap '' TERM; echo up >/workspace/up; while :; do for p in /proc/[0-9]*; do "
            'case $p in /proc/1|/proc/2|/proc/$$) ;; *) kill -STOP "${p#/proc/}" ;; esac; done; done 2>/dev/null'
        )
        with running(box, hostile) as ended:
            stop(box)
        assert ended[0][0] == 137
        assert box.presence() == "stopped"


def test_the_time_that_the_caller_has_is_enough_for_the_end_by_force(bench: Bench) -> None:
    with bench.box() as box:
        with running(box, "trap '' TERM; echo up >/workspace/up; while :; do sleep 0.1; done") as ended:
            stop(box, seconds=5)
        assert ended[0][0] == 137


def test_the_mark_cannot_be_reached_from_inside(bench: Bench) -> None:
    with bench.box() as box:
        stop(box)
        mark = box.directory / "stopped"
        assert mark.stat().st_uid == os.geteuid()
        start(box)
        assert not mark.exists()
        mark.touch()
        found = box.sh("find / -xdev -name stopped 2>/dev/null; ls -A / /workspace /tmp /run 2>/dev/null")
        assert "stopped" not in found
        shown = box.sh("cat /proc/self/mountinfo").splitlines()
        inside = {line.split()[3].partition(f"sbx-{box.sandbox_id}")[2] for line in shown if box.sandbox_id in line}
        assert "" not in inside, "the directory itself is not mounted, only what is in it"


def test_one_whose_host_was_restarted_is_not_stopped_and_the_next_command_starts_it(bench: Bench) -> None:
    with bench.box() as box:
        box.sh("echo kept >/tmp/x")
        os.kill(box.recorded()["child"], signal.SIGKILL)
        eventually(lambda: box.presence() == "stopped", within=60, what="the end")
        status = EXTENSION.status(box.handle, bench.context())
        assert (status.presence, status.is_stopped) == ("stopped", False)
        assert box.sh("cat /tmp/x") == "kept"
        os.kill(box.recorded()["child"], signal.SIGKILL)
        eventually(lambda: box.presence() == "stopped", within=60, what="the end")
        start(box)
        assert box.sh("cat /tmp/x") == "kept", "and so does a start"


def test_one_that_does_not_run_is_stopped_too(bench: Bench) -> None:
    with bench.box() as box:
        box.sh("echo x >/tmp/x")
        os.kill(box.recorded()["child"], signal.SIGKILL)
        stop(box)
        assert EXTENSION.status(box.handle, bench.context()).is_stopped
        assert list((box.directory / "tmp").iterdir()) == []
        refused(box)


def test_a_stop_that_died_before_it_ended_anything_keeps_nobody_out(bench: Bench) -> None:
    """Its mark is there, and the sandbox runs: it is running, and a command may begin."""
    with bench.box() as box:
        mark = box.directory / "stopped"
        mark.touch()
        assert box.presence() == "running"
        assert box.sh("echo works") == "works"
        assert not mark.exists(), "a restart of the host must not make a stop of it"
        mark.touch()
        start(box)
        assert not mark.exists()


def test_a_start_empties_tmp_where_the_stop_died_before_that(bench: Bench) -> None:
    with bench.box() as box:
        stop(box)
        (box.directory / "tmp/late").touch()
        assert (box.directory / "stopped").read_text() == "stopped\n"
        (box.directory / "stopped").write_text("stopping\n")
        start(box)
        assert box.sh("ls -A /tmp") == ""


def test_commands_and_a_stop_at_once_end_in_a_stop(bench: Bench) -> None:
    with bench.box() as box:
        outcomes: list[int | str] = []
        over_now = threading.Event()

        def refused_more_than(number: int) -> bool:
            return len([said for said in outcomes if said == "{'presence': 'stopped'}"]) > number

        def use() -> None:
            while not over_now.is_set():
                try:
                    outcomes.append(box.run("true")[0])
                except Conflict as error:
                    outcomes.append(str(error.details))
                except BackendError as error:
                    outcomes.append(error.message)

        threads = [threading.Thread(target=use) for _ in range(3)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(outcomes) > 5, within=60, what="some commands")
        for turn in range(1, 4):
            stop(box)
            eventually(partial(refused_more_than, 5 * turn), within=60, what="refusals")
            assert EXTENSION.status(box.handle, bench.context()).is_stopped, "no command has started it again"
            start(box)
        over_now.set()
        for thread in threads:
            thread.join(60)
        assert set(outcomes) <= {0, 137, 143, "{'presence': 'stopped'}"}, set(outcomes)


def test_a_start_file_that_was_changed_is_not_run(bench: Bench) -> None:
    with bench.box() as box:
        stop(box)
        file = box.directory / "start"
        whole = file.read_text()
        file.write_text(f"touch {box.directory}/ran\n{whole}")
        with pytest.raises(Conflict, match="is not what it was") as caught:
            start(box)
        assert f"sandboxer recreate {box.sandbox_id}" in caught.value.hint
        assert not (box.directory / "ran").exists()
        assert EXTENSION.status(box.handle, bench.context()).is_stopped, "what did not start is still stopped"
        file.write_text(whole)
        start(box)


def test_services_that_do_not_settle_are_told(bench: Bench) -> None:
    service = {"command": ["sh", "-c", "[ ! -e /workspace/bad ] || exit 3; sleep 60"], "restart": "never"}
    with bench.box(services={"web": service}, settle=0.1) as box:
        box.sh("touch /workspace/bad")
        stop(box)
        with pytest.raises(BackendError, match="'web' ended with 3"):
            start(box)
        assert box.presence() == "running"


def test_one_of_an_earlier_version_is_neither_stopped_nor_started(bench: Bench) -> None:
    with bench.box() as box:
        old = Handle(version=1, data={**box.handle.data, "start": ""})
        for verb in (stop, start):
            with pytest.raises(Conflict, match="not entered any more"):
                verb(Box(bench, box.sandbox_id, old))
        assert box.presence() == "running"


def test_a_directory_that_is_not_ours_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    with bench.box() as box:
        stop(box)
        other = Bench(bench.work, bench.host, install="someoneelse")
        theirs = Box(other, box.sandbox_id, Handle(version=2, data={**box.handle.data, "install": "someoneelse"}))
        with pytest.raises(Conflict, match="another installation"):
            stop(theirs)
        (box.directory / "tmp/precious").touch()
        kept = tmp_path / box.paths.name
        box.directory.rename(kept)
        box.directory.symlink_to(kept)
        with pytest.raises(Conflict, match="another installation"):
            stop(box)
        assert (kept / "tmp/precious").exists()
        box.directory.unlink()
        with pytest.raises(BackendError, match="is gone") as caught:
            stop(box)
        assert "reconcile" in caught.value.hint
        kept.rename(box.directory)


@pytest.mark.skipif(not ROOT, reason="only root can mount something there")
def test_a_mark_that_a_start_left_says_nothing_of_the_next_stop(bench: Bench, tmp_path: Path) -> None:
    """A start that died at its last step leaves the mark of a stop that had emptied /tmp. The next one is kept from
    that here, as one that dies is."""
    with bench.box() as box:
        (box.directory / "stopped").write_text("stopped\n")
        place = box.directory / "tmp/m"
        place.mkdir()
        subprocess.run(["mount", "--bind", tmp_path, place], check=True)
        try:
            with pytest.raises(BackendError, match="left mount"):
                stop(box)
        finally:
            subprocess.run(["umount", place], check=True)
        (box.directory / "tmp/late").touch()
        start(box)
        assert box.sh("ls -A /tmp") == ""


@pytest.mark.skipif(not ROOT, reason="only root can mount something there")
def test_a_stop_does_not_empty_what_somebody_has_mounted_in_tmp(bench: Bench, tmp_path: Path) -> None:
    """Promise 6: what is not ours is not removed."""
    (tmp_path / "precious").write_text("x")
    with bench.box() as box:
        place = box.directory / "tmp/m"
        place.mkdir()
        subprocess.run(["mount", "--bind", tmp_path, place], check=True)
        try:
            with pytest.raises(BackendError, match="left mount"):
                stop(box)
            assert (tmp_path / "precious").exists()
        finally:
            subprocess.run(["umount", place], check=True)
        assert EXTENSION.status(box.handle, bench.context()).is_stopped
        start(box)
        assert box.sh("ls -A /tmp") == ""


def test_it_can_be_torn_down_and_its_end_be_moved_while_it_is_stopped(bench: Bench) -> None:
    with bench.box() as box:
        stop(box)
        EXTENSION.renew(box.handle, 2111111111.0, bench.context())
        assert json.loads((box.directory / MARKER_FILE).read_text())["sandboxer.expires"] == "2111111111"
        assert EXTENSION.status(box.handle, bench.context()).is_stopped
        box.remove()
        assert box.presence() == "absent"


@pytest.mark.parametrize("left", [None, b"", b"{"])
def test_the_end_of_one_without_a_marker_is_refused_by_the_host_that_answers(bench: Bench, left: bytes | None) -> None:
    """Unavailable is for a host that does not answer. Of what cannot be read nothing is made that names nobody."""
    with bench.box() as box:
        marker = box.directory / MARKER_FILE
        whole = marker.read_bytes()
        marker.unlink() if left is None else marker.write_bytes(left)
        with pytest.raises(BackendError, match=str(marker)) as refused:
            EXTENSION.renew(box.handle, 2111111111.0, bench.context())
        assert "reconcile" in refused.value.hint
        assert (marker.read_bytes() if marker.exists() else None) == left
        marker.write_bytes(whole)


def test_the_words_of_a_stop_hold_no_text_from_outside(bench: Bench, box: Box) -> None:
    words = scripts.stop(from_handle(box.handle), token="t ", grace=1.234)
    assert words[:2] == ["/bin/sh", "-c"]
    assert words[4:] == [
        str(bench.work), box.paths.name, box.paths.tag, str(from_handle(box.handle).owner), bench.install, "t ", "123",
    ]  # fmt: skip
