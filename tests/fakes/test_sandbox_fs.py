"""The inside of a fake sandbox: real, apart from others, and gone when it is closed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import SandboxFS
from tests.testbed.waiting import eventually


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SandboxFS]:
    with SandboxFS(tmp_path / "box") as made:
        yield made


def test_commands_see_their_own_files_and_an_environment_without_ours(
    box: SandboxFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOXER_CANARY", "leaked")
    process = box.start(["sh", "-c", "pwd; id -un; echo $HOME; env; ls -A /tmp /home; exit 3"], env={"GIVEN": "a\nb"})
    out, err = process.communicate()
    assert (process.wait(), err) == (3, b"")
    assert out.startswith(b"/home/user\nuser\n/home/user\n")
    assert b"GIVEN=a\nb\n" in out
    assert b"leaked" not in out
    assert out.endswith(b"/home:\nuser\n\n/tmp:\n")


def test_stdin_stdout_and_stderr_are_pipes_of_their_own(box: SandboxFS) -> None:
    process = box.start(["sh", "-c", "cat; echo err >&2"], stdin=True)
    assert process.communicate(bytes(range(256)) * 1000) == (bytes(range(256)) * 1000, b"err\n")
    merged = box.start(["sh", "-c", "echo out; echo err >&2"], merged=True)
    assert merged.communicate()[0] == b"out\nerr\n"


def test_exit_codes_are_those_of_a_shell(box: SandboxFS) -> None:
    (box.path("/tmp") / "plain").write_text("text")
    for argv, code in (
        (["no-such-program"], 127),
        (["/tmp/plain"], 126),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "exit 255"], 255),
    ):
        process = box.start(argv)
        process.communicate()
        assert process.wait() == code
    with pytest.raises(FileNotFoundError):
        box.start(["pwd"], cwd="/nowhere")
    assert box.run(["pwd"], cwd="/usr") == (0, b"/usr\n")


def test_what_one_command_leaves_running_another_sees_and_closing_ends(box: SandboxFS) -> None:
    assert box.run(["sh", "-c", "sleep 4711 >/dev/null 2>&1 & exit 0"])[0] == 0
    assert b"sleep 4711" in box.run(["ps", "ax"])[1]
    assert _on_this_machine("sleep\x004711")
    box.stop()
    assert not _on_this_machine("sleep\x004711")
    assert b"sleep" not in box.run(["ps", "ax"])[1]


def test_killing_takes_the_children_along(box: SandboxFS) -> None:
    process = box.start(["sh", "-c", "sleep 4712 & sleep 4712"])
    eventually(lambda: len(_on_this_machine("sleep\x004712")) == 2, within=5, what="both sleep")
    process.kill()
    assert process.wait() == 137
    eventually(lambda: not _on_this_machine("sleep\x004712"), within=5, what="both are gone")


def test_a_signal_reaches_the_program(box: SandboxFS) -> None:
    process = box.start(["sh", "-c", "trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 0.05; done"])
    assert process.stdout.readline() == b"ready\n"
    process.signal(signal.SIGTERM)
    assert (process.stdout.readline(), process.wait()) == (b"got\n", 7)


def test_waiting_has_an_end(box: SandboxFS) -> None:
    process = box.start(["sleep", "60"])
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        process.wait(0.1)
    assert time.monotonic() - started < 30
    assert box.running() == 1
    process.close()
    assert box.running() == 0


def test_two_boxes_do_not_see_each_other(box: SandboxFS, tmp_path: Path) -> None:
    with SandboxFS(tmp_path / "other") as other:
        box.run(["sh", "-c", "echo secret > /tmp/file; sleep 4713 >/dev/null 2>&1 & exit 0"])
        assert b"file" not in other.run(["ls", "/tmp"])[1]
        assert b"4713" not in other.run(["ps", "axww"])[1]
        assert other.run(["cat", str(box.path("/tmp/file"))])[0] != 0, "nor the way round by the machine's own path"


def test_paths_do_not_lead_out(box: SandboxFS, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("of the machine")
    box.run(["sh", "-c", f"ln -s {tmp_path}/outside out; ln -s ../../../../etc/passwd up; ln -s loop loop"])
    root = tmp_path / "box"
    for inside in ("out", "up", "/../../etc/passwd", "/home/user/../../../../etc/shadow"):
        assert box.path(inside).is_relative_to(root)
    assert not box.path("out").exists()
    assert "user" in box.path("up").read_text()
    with pytest.raises(OSError, match="Too many levels"):
        box.path("loop")


def test_files_written_from_here_are_found_inside_and_the_other_way_round(box: SandboxFS) -> None:
    box.path("hello").write_bytes(b"from here")
    assert box.run(["sh", "-c", "cat hello; printf 'from inside' > back"]) == (0, b"from here")
    assert box.path("/home/user/back").read_bytes() == b"from inside"


def test_a_copy_has_the_files_as_they_were(box: SandboxFS, tmp_path: Path) -> None:
    box.run(["sh", "-c", "echo first > file; mkfifo pipe; ln -s file link"])
    with box.copy(tmp_path / "copy") as copied:
        box.run(["sh", "-c", "echo second > file"])
        assert copied.run(["sh", "-c", "cat file link"]) == (0, b"first\nfirst\n")


def test_closing_leaves_nothing(tmp_path: Path) -> None:
    box = SandboxFS(tmp_path / "box")
    box.run(["sh", "-c", "mkdir -p a/b; chmod 0 a/b a; sleep 4714 >/dev/null 2>&1 & exit 0"])
    box.close()
    assert not (tmp_path / "box").exists()
    assert not _on_this_machine("sleep\x004714")
    with pytest.raises(RuntimeError, match="closed"):
        box.start(["true"])


def test_a_box_ends_with_the_process_that_made_it(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        box = SandboxFS(tmp_path / "box")
        box.run(["sh", "-c", "sleep 4715 >/dev/null 2>&1 & exit 0"])
        os._exit(0 if _on_this_machine("sleep\x004715") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    eventually(lambda: not _on_this_machine("sleep\x004715"), within=5, what="it is gone")


def _on_this_machine(words: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if line.startswith(words.encode()):
                found.append(entry.name)
    return found
