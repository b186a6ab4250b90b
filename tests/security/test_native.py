"""Attacks on native sandboxes from inside, here and over SSH; test_other_users.py runs them as an ordinary user.

Promise 31: nothing executed or read outside a sandbox can be written, traced or steered from inside.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxer.errors import Conflict, SandboxerError, Timeout
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Streams
from sandboxer.hosts.local import LocalHost
from sandboxer.models import HostSettings
from tests.extensions.native.sandboxes import EXTENSION, Bench, Box, over
from tests.testbed.waiting import eventually

ROOT = os.geteuid() == 0
ATTACKS = Path(__file__).parent / "native_attacks"


def attack(box: Box, name: str, *words: str, seconds: float = 60) -> tuple[int, bytes, bytes]:
    """Run a program of native_attacks inside."""
    return box.run("python3", "-c", (ATTACKS / f"{name}.py").read_text(), *words, seconds=seconds)


def stop(box: Box) -> None:
    """End the sandbox behind its back, so that the next command starts it again."""
    os.kill(box.recorded()["child"], signal.SIGKILL)
    eventually(lambda: box.presence() == "stopped", within=60, what="the end")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the registers of the attack are those of x86-64")
def test_the_program_that_starts_a_sandbox_again_cannot_be_replaced_from_inside(bench: Bench, tmp_path: Path) -> None:
    """It succeeded wherever bubblewrap belonged to the user."""
    escaped = tmp_path / "escaped"
    with bench.box(python=True) as box:
        code, out, err = attack(box, "escape", f"#!/bin/sh\nid >{escaped}\nexit 1\n")
        assert (code, out) == (1, b"")
        assert err == b"stopped at image: Permission denied\n"
        assert box.sh("echo works") == "works"
    assert not escaped.exists()


def test_the_first_process_gives_nothing_of_itself_away(box: Box) -> None:
    code, out, err = attack(box, "first_process")
    assert (code, json.loads(out), err) == (0, [], b"")


def test_newcomers_cannot_be_got_at_before_they_are_the_program_that_was_asked_for(bench: Bench) -> None:
    with bench.box(python=True) as box:
        box.sh("cp /bin/true wanted")
        watched: list[tuple[int, bytes, bytes]] = []
        watcher = threading.Thread(target=lambda: watched.append(attack(box, "newcomers")))
        watcher.start()
        eventually((box.directory / "workspace/watching").exists, within=60, what="the watcher")
        codes = [box.run("/workspace/wanted")[0] for _ in range(15)]
        box.run("/bin/touch", "/workspace/stop")
        watcher.join(60)
    assert codes == [0] * 15
    assert watched[0][::2] == (0, b"")
    assert [found for found in json.loads(watched[0][1]) if "touch" not in found] == []


def test_who_traces_all_newcomers_and_keeps_them_cannot_hold_us_longer_than_the_deadline(bench: Bench) -> None:
    with bench.box(python=True) as box:
        holder = threading.Thread(target=lambda: _quietly(box, "newcomers", "hold"))
        holder.start()
        eventually((box.directory / "workspace/watching").exists, within=60, what="the watcher")
        for _ in range(3):
            with contextlib.suppress(Timeout):
                assert box.run("true", seconds=2)[0] == 0
        (box.directory / "workspace/stop").touch()
        holder.join(90)
        assert not holder.is_alive()
        assert box.sh("echo works") == "works"


def test_who_traces_a_command_cannot_keep_its_end_from_us(bench: Bench) -> None:
    """Without a deadline the command lasted as long as its tracer wanted, although it had ended long since."""
    with bench.box(python=True) as box, _keeping(box, "trace"):
        waits = "until [ -e go ]; do sleep 0.1; done; exit 7"
        assert box.run("/workspace/wanted", "-c", waits, seconds=120)[0] == 7


def test_a_command_that_somebody_inside_has_stopped_says_so(bench: Bench) -> None:
    with bench.box(python=True) as box, _keeping(box, "stop"):
        said, codes = bytearray(), list[int]()
        streams = Streams(stdout=lambda _: None, stderr=said.extend)
        request = Exec(argv=("/workspace/wanted", "-c", "until [ -e enough ]; do sleep 0.1; done; exit 7"))
        command = threading.Thread(
            target=lambda: codes.append(EXTENSION.exec(box.handle, request, streams, bench.context(seconds=120)))
        )
        command.start()
        eventually(lambda: b"(kill -CONT lets it go on)\n" in said, within=60, what="the report")
        (box.directory / "workspace/enough").touch()
        command.join(60)
        assert codes == [7]
        assert said.startswith(b"sandboxer: the command is process ")


@contextlib.contextmanager
def _keeping(box: Box, how: str) -> Iterator[None]:
    box.sh("cp /bin/sh wanted")
    keeper = threading.Thread(target=lambda: _quietly(box, "keeper", how))
    keeper.start()
    eventually((box.directory / "workspace/watching").exists, within=60, what="the keeper")
    yield
    (box.directory / "workspace/stop").touch()
    keeper.join(60)
    assert not keeper.is_alive()


def test_the_command_line_that_enters_tells_nobody_inside_anything(bench: Bench) -> None:
    """It held what tells our own complaints from those of programs, the work directory, and numbers of the host."""
    with bench.box(python=True) as box:
        read: list[tuple[int, bytes, bytes]] = []
        reader = threading.Thread(target=lambda: read.append(attack(box, "command_lines")))
        reader.start()
        eventually((box.directory / "workspace/watching").exists, within=60, what="the reader")
        for _ in range(30):
            box.run("true", tty=_terminals(bench))
        (box.directory / "workspace/stop").touch()
        reader.join(60)
    assert read[0][0] == 0
    assert [word for word in json.loads(read[0][1]) if not word.startswith("--")] == []


def _quietly(box: Box, name: str, *words: str) -> None:
    with contextlib.suppress(SandboxerError):
        attack(box, name, *words)


def test_a_signal_to_the_own_group_reaches_nothing_outside(box: Box) -> None:
    """The leader of the session outside was killed by it, and left its record behind."""
    for tty in (False, True) if _terminals(box.bench) else (False,):
        assert box.run("sh", "-c", "kill -9 0", tty=tty)[0] == 137
        assert list((box.directory / "track").iterdir()) == []


def _terminals(bench: Bench) -> bool:
    """An sshd that is not root's cannot make any."""
    return ROOT or bench.host.address().kind == "local"


def test_a_signal_to_everybody_reaches_nothing_outside(bench: Bench) -> None:
    with bench.box(python=True) as box:
        # whether it sees its own success is a race with the end of the sandbox
        assert box.run("python3", "-c", "import os; os.kill(-1, 9)")[0] in (0, 137)
        assert list((box.directory / "track").iterdir()) == []
        eventually(lambda: box.presence() == "stopped", within=60, what="the end")
        assert box.sh("echo works") == "works"


def test_a_child_that_is_given_to_our_waiting_process_does_not_end_the_command(box: Box) -> None:
    assert attack(box, "sibling")[0] == 5


_MAKE_A_KEY = """
import ctypes, os, sys
add, control = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
kernel = ctypes.CDLL(None, use_errno=True)
kernel.syscall.restype = ctypes.c_long
key = kernel.syscall(add, b"user", b"sandboxer-test-key", b"leaked", 6, -4)
if key < 0 or kernel.syscall(control, 5, key, 0x3f3f0000) < 0:
    sys.exit(77)
print(key, kernel.syscall(control, 0, -4, 0), flush=True)
sys.stdin.read()
kernel.syscall(control, 9, key, -4)
"""


def test_kernel_keys_of_the_hosts_user_cannot_be_read(box: Box) -> None:
    """Also by number, and by possession of the user's keyring: namespaces do not separate them."""
    words = [sys.executable, "-c", _MAKE_A_KEY]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        made = owner.stdout.readline().split()
        if not made:
            assert owner.wait(60) == 77
            pytest.skip("no key can be made here")
        _, out, _ = attack(box, "keys", *made)
        owner.communicate("")
    assert out == b"||"


@pytest.mark.parametrize("file", ["start", "run/guard", "run/bwrap/package/bin/bwrap"])
def test_a_file_that_a_restart_would_run_is_run_only_as_it_was(bench: Bench, tmp_path: Path, file: str) -> None:
    with bench.box() as box:
        path = box.directory / file
        if not path.exists():
            assert file.endswith("bwrap"), "it is there only where the host has none"
            return
        stop(box)
        whole = path.read_bytes()
        path.write_bytes(f"#!/bin/sh\nid >{tmp_path}/ran\n".encode() + whole)
        with pytest.raises(Conflict, match="is not what it was when the sandbox was made") as caught:
            box.run("true")
        assert f"sandboxer recreate {box.sandbox_id}" in caught.value.hint
        assert not (tmp_path / "ran").exists()
        path.write_bytes(whole)
        assert box.sh("echo works") == "works"


def test_a_record_of_the_holder_that_names_somebody_else_ends_and_enters_nobody(bench: Bench) -> None:
    with bench.box() as box, subprocess.Popen(["sleep", "1000"]) as bystander:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        start = Path(f"/proc/{bystander.pid}/stat").read_text().rpartition(") ")[2].split()[19]
        record = box.directory / "run/holder"
        stop(box)
        forged = "".join(f"{what} {bystander.pid} {start} {boot}\n" for what in ("monitor", "child", "up"))
        record.write_text(forged)
        assert box.sh("echo works") == "works"
        assert bystander.poll() is None
        record.write_text(forged)
        box.remove()
        assert bystander.poll() is None
        bystander.kill()


def test_what_runs_commands_is_sealed_against_every_write(box: Box) -> None:
    image = f"/proc/{box.recorded()['monitor']}/exe"
    with open(image, "rb") as file:
        seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
    assert seals == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    with pytest.raises(OSError, match=r"busy|permitted|denied"):
        os.open(image, os.O_WRONLY)


def test_every_process_inside_runs_under_the_filter_after_a_restart_too(bench: Bench) -> None:
    script = "for p in /proc/[0-9]*; do grep -s ^Seccomp: $p/status; done"
    with bench.box(services={"a": {"command": ["sleep", "1000"]}}, settle=0.05) as box:
        assert box.ready is not None
        assert box.ready.isolation.syscalls == "filtered"
        assert not any("not filtered" in note for note in box.ready.isolation.notes)
        for _ in range(2):
            eventually(
                lambda: "sleep" in box.sh("cat /proc/[0-9]*/comm 2>/dev/null; true").split(),
                within=60,
                what="the service",
            )
            assert {*box.sh(script).splitlines()} == {"Seccomp:\t2"}
            if _terminals(bench):
                assert {*box.run("sh", "-c", script, tty=True)[1].split()} == {b"Seccomp:", b"2"}
            stop(box)


SHADOWED = (
    "sh", "flock", "sha256sum", "tar", "cat", "grep", "uname", "unshare", "setpriv", "mount", "chown", "install", "tail"
)  # fmt: skip


def test_what_is_called_like_a_tool_of_ours_in_somebodys_own_folder_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in SHADOWED:
        (folder / name).write_text(f"#!/bin/bash\necho {name} >>{tmp_path}/ran\n")
        (folder / name).chmod(0o755)
    environ = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    settings = HostSettings(work_dir=str(tmp_path / "work"))
    bench = Bench(tmp_path / "work", LocalHost("local", settings, environ=environ))
    services = {"a": {"command": ["sleep", "1000"]}}
    with bench.box(services=services, settle=0.05) as box:
        stop(box)
        assert box.sh("echo works") == "works"
        streams = Streams(stdout=lambda _: None, stderr=lambda _: None)
        EXTENSION.logs(box.handle, streams, bench.context(), service=None, follow=False, tail=None)
    assert not (tmp_path / "ran").exists()


def test_nothing_lives_on_inside_when_the_holder_is_killed(bench: Bench) -> None:
    with bench.box() as box:
        recorded = box.recorded()
        os.kill(recorded["monitor"], signal.SIGKILL)
        eventually(lambda: over(recorded["child"]), within=60, what="the first process to end")


_INOTIFY = "import ctypes; c = ctypes.CDLL(None); n = 0\nwhile c.inotify_init1(0) >= 0: n += 1\nprint(n, flush=True)\n"


@pytest.mark.skipif(ROOT, reason="root's sandboxes have a user of their own, and share no quota with anybody")
def test_a_sandbox_takes_a_quarter_of_its_users_inotify_instances_at_most(box: Box) -> None:
    whole = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    taken = int(box.run("python3", "-c", f"import resource; {_INOTIFY}")[1])
    assert 0 < taken <= whole // 4
    assert box.ready is not None
    assert any("inotify" in note for note in box.ready.isolation.notes)
