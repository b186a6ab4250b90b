"""What interrupts a command reaches it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxer.cli import signals
from sandboxer.cli.signals import Signalled
from tests.cli.running import Command
from tests.testbed.interrupts import installed

LONG = 60
"""Longer than any machine takes to notice a signal, in seconds."""


class Thing:
    """What weak references can be made to."""


class Ending:
    """A signal comes while this one ends."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


def in_a_finaliser(number: int) -> None:
    ending = Ending(number)
    del ending


def in_a_callback(number: int) -> None:
    thing = Thing()
    _reference = weakref.ref(thing, lambda _: signal.raise_signal(number))
    del thing


def waiting_after(*steps: tuple[Callable[[int], None], int]) -> None:
    """Takes the steps and waits until a signal ends the wait: by one call of the system, since an interrupt inside the
    locks of `threading` comes out as an error of theirs."""
    for step, number in steps:
        step(number)
    begun = time.monotonic()
    try:
        select.select([], [], [], LONG)
    finally:
        assert time.monotonic() - begun < LONG, "the signal did not end the wait"
    pytest.fail("the signal was lost")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("where", [in_a_finaliser, in_a_callback])
def test_a_signal_where_python_drops_exceptions_interrupts_all_the_same(
    where: Callable[[int], None], number: int
) -> None:
    with installed(), pytest.raises(Signalled) as raised:
        waiting_after((where, number))
    assert raised.value.number == number


def test_it_comes_again_as_often_as_it_is_dropped() -> None:
    with installed(), pytest.raises(Signalled) as raised:
        waiting_after((in_a_finaliser, signal.SIGTERM), *3 * [(in_a_callback, signal.SIGALRM)])
    assert raised.value.number == signal.SIGTERM


def test_other_errors_that_python_drops_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("broken in the end")

    with installed():
        broken = Broken()
        del broken
        assert sys.unraisablehook is not sys.__unraisablehook__
    assert "broken in the end" in capsys.readouterr().err


@pytest.mark.parametrize("where", [in_a_finaliser, in_a_callback])
def test_it_is_not_lost_where_it_comes_again_before_python_has_dropped_it(
    where: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the time for the finaliser to end is over before our hook has returned."""
    monkeypatch.setattr(signals, "AGAIN_SECONDS", 0.000001)
    for _ in range(20):
        with installed(), pytest.raises(Signalled):
            waiting_after((where, signal.SIGTERM))


def test_it_comes_again_where_the_call_that_waits_did_not_notice_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when it arrives between Python's last look for signals and the call. Here the call does not notice the first
    one because such calls go on after a signal, until that one has come."""
    monkeypatch.setattr(signals, "AGAIN_SECONDS", 0.3)
    arrived, arrivals = os.pipe()
    never, held = os.pipe()
    os.set_blocking(arrivals, False)

    def notice_the_next_one() -> None:
        while os.read(arrived, 1) != bytes([signal.SIGALRM]):
            pass
        signal.siginterrupt(signal.SIGALRM, True)
        rescue.start()

    def dropped_and_waited_for() -> None:
        in_a_finaliser(signal.SIGTERM)
        os.read(never, 1)

    rescue = threading.Timer(LONG, os.write, [held, b"x"])
    rescue.daemon = True
    with installed():
        before = signal.set_wakeup_fd(arrivals, warn_on_full_buffer=False)
        signal.siginterrupt(signal.SIGALRM, False)
        try:
            noticing = threading.Thread(target=notice_the_next_one, daemon=True)
            noticing.start()
            begun = time.monotonic()
            with pytest.raises(Signalled):
                dropped_and_waited_for()
            assert time.monotonic() - begun < LONG
        finally:
            signal.set_wakeup_fd(before)
            noticing.join(LONG)
            rescue.cancel()
            for end in (arrivals, arrived, never, held):
                os.close(end)


def test_one_that_comes_while_another_error_is_shown_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("broken in the end")

    def shown(number: int) -> None:
        broken = Broken()
        monkeypatch.setattr(sys, "__unraisablehook__", lambda _dropped: signal.raise_signal(number))
        del broken

    with installed(), pytest.raises(Signalled) as raised:
        waiting_after((shown, signal.SIGTERM))
    assert raised.value.number == signal.SIGTERM


AFTERWARDS = """
import signal, sys
from sandboxer.cli import catalog
from sandboxer.cli.main import main

def struck():
    try:
        signal.raise_signal(int(sys.argv[1]))
    finally:
        raise RuntimeError("cannot release un-acquired lock")

catalog.installation = struck
sys.exit(main(["profiles", "list"]))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupt_that_comes_out_as_another_error_is_an_interrupt(number: int, status: int) -> None:
    """As from the wait of a lock, whose `with` then complains of a lock that it does not hold: that was "a bug"."""
    words = [sys.executable, "-c", AFTERWARDS, str(int(number))]
    done = subprocess.run(words, capture_output=True, timeout=60, check=False)
    assert (done.returncode, b"bug" in done.stderr) == (status, False), done.stderr


STRUCK = """
import signal
from sandboxer.errors import BackendError
from sandboxer.testing.fake import FakeExtension

class Struck(FakeExtension):
    def wait_ready(self, handle, ctx):
        signal.raise_signal(signal.SIGTERM)

class Stuck(Struck):
    def teardown(self, handle, ctx):
        raise BackendError("it stays", hint="wait")
"""


def interrupted_create(root: Path, kind: str, *words: str) -> dict[str, Any]:
    """What a create says that a signal strikes while it waits for its sandbox, and its record."""
    sandboxer = Command(root, more={"PYTHONPATH": str(root)})
    (root / "struck.py").write_text(STRUCK)
    manifest = root / "config" / "extensions" / "ext.fake.yaml"
    manifest.write_text(manifest.read_text().replace("sandboxer.testing.fake:FakeExtension", f"struck:{kind}"))
    answer = sandboxer("create", "--profile", "profile.fake", "--json", *words)
    (record,) = sandboxer("list", "--all", "--json").document["sandboxes"]
    assert (answer.status, record["state"]) == (143, "failed")
    assert answer.error["sandbox_id"] == record["id"]
    return answer.error


def test_an_interrupted_create_tells_which_one_it_was_and_that_it_was_taken_back(tmp_path: Path) -> None:
    """The document had neither, though there was a record."""
    error = interrupted_create(tmp_path, "Struck")
    assert (error["code"], error["outcome"]) == ("interrupted", "failed")
    assert "taken back" in error["message"]
    assert not list((tmp_path / "work" / "fake").iterdir())


def test_an_interrupted_create_tells_that_something_was_left(tmp_path: Path) -> None:
    error = interrupted_create(tmp_path, "Stuck")
    assert (error["code"], error["outcome"]) == ("interrupted", "unknown")
    assert "could not all be taken back" in error["message"]


def test_an_interrupted_create_tells_that_it_was_kept(tmp_path: Path) -> None:
    error = interrupted_create(tmp_path, "Struck", "--keep-failed")
    assert "is kept" in error["message"]


def typed_at_a_terminal(sandboxer: Command, key: bytes, *words: str, ready: bytes) -> tuple[int, bytes]:
    """Run a command on a terminal of its own, press a key once it has written `ready`: its status and what it wrote."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.chdir(sandboxer.root)
            argv = sandboxer.words(*words)
            os.execve(argv[0], argv, sandboxer.environment)  # noqa: S606 - no shell
        finally:
            os._exit(124)
    said, pressed, end = b"", False, time.monotonic() + LONG
    try:
        while time.monotonic() < end:
            if not select.select([terminal], [], [], 1)[0]:
                continue
            try:
                chunk = os.read(terminal, 1 << 16)
            except OSError:  # the other end is closed
                break
            said += chunk
            if not pressed and ready in said:
                os.write(terminal, key)
                pressed = True
        else:
            os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said
    finally:
        os.close(terminal)


@pytest.mark.parametrize("profile", ["profile.fake", "profile.native"])
@pytest.mark.parametrize(("key", "status"), [(b"\x03", 130), (b"\x1c", 131)], ids=["Ctrl-C", "Ctrl-\\"])
@pytest.mark.parametrize("option", [(), ("-t",)], ids=["plain", "-t"])
def test_a_command_that_takes_no_keys_is_ended_by_those_that_interrupt(
    tmp_path: Path, profile: str, key: bytes, status: int, option: tuple[str, ...]
) -> None:
    """With -t and without -i the keys went to nobody, and it ran to its end."""
    sandboxer = Command(tmp_path)
    made = sandboxer("create", "--profile", profile, "--json").document["id"]
    script = "sleep 1000 & echo $! > left; echo begun; sleep 1000"
    begun = typed_at_a_terminal(sandboxer, key, "exec", *option, made, "--", "sh", "-c", script, ready=b"begun")
    assert begun[0] == status, begun
    assert b"taking back" not in begun[1]
    assert b"ending the command" in begun[1]
    assert b"sandboxer list" not in begun[1]
    look = "for p in $(cat left); do [ ! -e /proc/$p ] || grep -qs ^State:.Z /proc/$p/status || echo $p; done"
    assert sandboxer("exec", made, "--", "sh", "-c", look).stdout == ""
    assert sandboxer("destroy", made).status == 0


@pytest.mark.parametrize("profile", ["profile.fake", "profile.native"])
@pytest.mark.parametrize("option", [(), ("-t",)], ids=["plain", "-t"])
def test_the_keys_end_a_run_and_take_its_sandbox_with_it(tmp_path: Path, profile: str, option: tuple[str, ...]) -> None:
    sandboxer = Command(tmp_path)
    words = ("run", "--profile", profile, *option, "--", "sh", "-c", "echo begun; sleep 1000")
    status, said = typed_at_a_terminal(sandboxer, b"\x03", *words, ready=b"begun")
    assert status == 130, said
    assert b"ending the command and its sandbox" in said
    assert b"its sandbox destroyed" in said
    assert [record["state"] for record in sandboxer("list", "--all", "--json").document["sandboxes"]] == ["destroyed"]


def test_with_it_the_keys_are_the_commands_once_its_sandbox_is_ready(tmp_path: Path) -> None:
    """It ends as it likes, and what it was made in goes all the same."""
    sandboxer = Command(tmp_path)
    script = "trap 'echo mine; exit 3' INT; echo begun; while :; do sleep 0.1; done"
    words = ("run", "--profile", "profile.native", "-it", "--", "sh", "-c", script)
    status, said = typed_at_a_terminal(sandboxer, b"\x03", *words, ready=b"begun")
    assert (status, b"mine" in said) == (3, True), said
    assert [record["state"] for record in sandboxer("list", "--all", "--json").document["sandboxes"]] == ["destroyed"]
