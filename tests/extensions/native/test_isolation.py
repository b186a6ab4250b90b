"""What can be seen and done from inside, measured from inside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxer.hosts.local import LocalHost
from sandboxer.models import HostSettings
from sandboxer.timing import Deadline
from tests.extensions.native.sandboxes import EXTENSION, Bench, Box

ROOT = os.geteuid() == 0


def _status(text: str) -> dict[str, str]:
    return {line.split(":")[0]: line.split(":")[1].strip() for line in text.splitlines() if ":" in line}


@pytest.mark.parametrize(
    "path", ["/root", "/home", "/etc/shadow", "/etc/ssh", "/srv", "/mnt", "/boot", "/sys", "/etc/ssl/private", "/host"]
)
def test_the_hosts_own_files_are_not_there(box: Box, path: str) -> None:
    assert box.run("ls", path)[0] != 0


def test_the_top_has_only_what_a_sandbox_needs(box: Box) -> None:
    top = set(box.sh("ls /").split())
    system = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}
    assert top - system == {"workspace", "tmp", "proc", "dev", "etc", "run", "var", "opt"}


def test_host_processes_are_not_there(box: Box) -> None:
    commands = box.sh("for d in /proc/[0-9]*; do tr '\\0' ' ' <$d/cmdline; echo; done 2>/dev/null")
    assert "pytest" not in commands
    assert box.sh("cat /proc/1/comm") == "guard"


def test_no_capability_and_no_new_privileges_for_commands_and_for_the_first_process(box: Box) -> None:
    for process in ("self", "1"):
        status = _status(box.sh(f"cat /proc/{process}/status"))
        assert [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [0, 0, 0, 0]
        assert status["NoNewPrivs"] == "1"


def test_on_the_host_it_runs_as_an_unprivileged_user(box: Box) -> None:
    status = _status(Path(f"/proc/{box.recorded()['child']}/status").read_text())
    expected = box.paths.owner if ROOT else os.geteuid()
    assert status["Uid"].split() == [str(expected)] * 4
    assert status["Gid"].split() == [str(expected if ROOT else os.getegid())] * 4
    if ROOT:
        assert status["Groups"] == ""


def test_it_believes_to_be_an_ordinary_user(box: Box) -> None:
    assert box.sh("id -u; id -un; echo $HOME; hostname 2>/dev/null || cat /etc/hostname").split() == [
        "1000", "sandbox", "/workspace", box.paths.name,
    ]  # fmt: skip


@pytest.mark.parametrize("folder", ["/usr", "/etc", "/dev", "/", "/run", "/var", "/run/sandboxer", "/proc/sys/kernel"])
def test_outside_workspace_and_tmp_nothing_can_be_written(box: Box, folder: str) -> None:
    assert box.run("sh", "-c", f"echo x >{folder}/x")[0] != 0
    assert box.run("mount", "-o", "remount,rw", folder)[0] != 0
    assert box.run("mount", "-o", "remount,bind,rw", folder)[0] != 0


def test_no_folder_is_writable_but_the_sandboxs_own(box: Box) -> None:
    found = box.sh("find / -xdev -path /proc -prune -o -type d -writable -print 2>/dev/null; "
                   "find /dev /workspace /tmp -xdev -type d -writable -print 2>/dev/null")  # fmt: skip
    assert {path for path in found.split() if not path.startswith("/tmp/")} <= {
        "/workspace",
        "/tmp",
        "/dev/shm",
        "/dev/pts",
    }


def test_a_user_namespace_cannot_be_made_inside(box: Box) -> None:
    code, _, said = box.run("unshare", "--user", "--map-root-user", "mount", "-o", "remount,rw", "/usr")
    assert code != 0
    assert b"unshare" in said
    assert box.run("unshare", "--mount", "true")[0] != 0


def test_there_is_no_network_but_a_loopback_of_its_own(box: Box) -> None:
    lines = box.sh("cat /proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]
    assert str(Path("/proc/self/ns/net").readlink()) != box.sh("readlink /proc/self/ns/net")


@pytest.mark.parametrize("kind", ["mnt", "pid", "ipc", "uts", "user", "net", "cgroup"])
def test_each_namespace_is_its_own_and_shared_by_all_commands(box: Box, kind: str) -> None:
    inside = box.sh(f"readlink /proc/self/ns/{kind}")
    assert inside != str(Path(f"/proc/self/ns/{kind}").readlink())
    assert inside == box.sh(f"readlink /proc/self/ns/{kind}")
    assert inside == str(Path(f"/proc/{box.recorded()['child']}/ns/{kind}").readlink())


def test_commands_and_the_first_process_have_no_descriptor_of_ours(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    fds = [os.open(tmp_path / "secret", os.O_RDONLY) for _ in range(30)]
    try:
        for fd in fds:
            os.set_inheritable(fd, True)
        with bench.box() as box:
            own = box.sh("for f in /proc/self/fd/*; do echo $f $(readlink $f); done")
            first = box.sh("for p in /proc/[0-9]*; do for f in $p/fd/*; do echo $f $(readlink $f); done; done")
            held = [*Path(f"/proc/{box.recorded()['child']}/fd").iterdir()] if ROOT else []  # nobody else may look
    finally:
        for fd in fds:
            os.close(fd)
    assert "secret" not in own + first
    assert str(bench.work) not in first
    assert held == [], "the first process has none at all"


def test_nothing_of_our_environment_is_inside_not_even_of_the_first_process(tmp_path: Path) -> None:
    environ = {**os.environ, "SANDBOXER_CANARY": "leaked", "LD_PRELOAD": "", "HOME": str(tmp_path / "leaked")}
    settings = HostSettings(work_dir=str(tmp_path / "work"), env={"FROM_CONFIG": "leaked"})
    bench = Bench(tmp_path / "work", LocalHost("local", settings, environ=environ))
    with bench.box() as box:
        assert set(box.sh("env").split()) == {
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/workspace", "USER=sandbox",
            "LOGNAME=sandbox", "LANG=C.UTF-8", "PWD=/workspace",
        }  # fmt: skip
        everyone = box.sh("for p in /proc/[0-9]*; do tr '\\0' '\\n' <$p/environ; echo; done")
    assert "leaked" not in everyone
    assert "SANDBOXER_CANARY" not in everyone


def test_an_environment_that_would_change_programs_of_the_host_reaches_the_command_only(box: Box) -> None:
    code, out, err = box.run("env", LD_PRELOAD="/workspace/evil.so", BASH_ENV="/workspace/x", PATH="/nowhere:/usr/bin")
    assert code == 0
    assert b"PATH=/nowhere:/usr/bin" in out
    # one program, the command itself, tried to load it
    assert err.count(b"evil.so") == 1


def test_two_sandboxes_have_different_users_and_cannot_signal_each_other(bench: Bench, box: Box) -> None:
    with bench.box() as other:
        if ROOT:
            assert other.paths.owner != box.paths.owner
        other.sh("sleep 100 >/dev/null 2>&1 & echo mine >/tmp/x; echo mine >/workspace/x")
        with bench.box() as attacker:
            assert attacker.sh("ls -A /tmp /workspace").split() == ["/tmp:", "/workspace:"]
            attacker.run("sh", "-c", "kill -9 -1")  # its own first process, too
        assert "sleep" in other.sh("cat /proc/[0-9]*/comm 2>/dev/null; true").split()


@pytest.mark.skipif(not ROOT, reason="an ordinary user owns its sandboxes' directories anyway")
def test_other_users_of_the_host_cannot_look_into_a_sandboxs_directory(bench: Bench, box: Box) -> None:
    box.sh("echo secret >/workspace/s; chmod 777 /workspace; chmod 666 /workspace/s")
    words = ["setpriv", "--reuid", "61999", "--regid", "61999", "--clear-groups", "cat", box.paths.path("workspace/s")]
    for folder in [*Path(box.paths.work_dir).parents][:-3]:
        folder.chmod(folder.stat().st_mode | 0o011)
    Path(box.paths.work_dir).chmod(0o711)
    done = subprocess.run(words, capture_output=True, check=False)
    assert b"Permission denied" in done.stderr
    assert b"secret" not in done.stdout


def test_the_hosts_network_is_shared_only_on_request_and_then_it_is_said(bench: Bench) -> None:
    with bench.box(network="host") as box:
        assert box.sh("readlink /proc/self/ns/net") == str(Path("/proc/self/ns/net").readlink())
        assert box.ready is not None
        assert box.ready.isolation.network == "host"
        assert any("network" in note for note in box.ready.isolation.notes)


def test_a_python_is_there_on_request(bench: Bench) -> None:
    with bench.box(python=True) as box:
        version = box.sh("python3 -c 'import sys; print(sys.version_info >= (3, 11))'")
        assert version == "True"


def test_a_folder_of_the_host_can_be_shown_read_only(bench: Bench) -> None:
    # a tree in a folder that the sandbox's user could not pass, as root's home is
    with bench.box(ro_binds={"/opt/py": sys.base_prefix, "/opt/one": "/etc/hostname"}) as box:
        assert "lib" in box.sh("ls /opt/py").split()
        assert box.run("touch", "/opt/py/x")[0] != 0
        assert box.sh("cat /opt/one") == Path("/etc/hostname").read_text().rstrip("\n")
        assert box.ready is not None
        assert "shows /etc/hostname of the host, read-only, as /opt/one" in box.ready.isolation.notes


def test_the_claim_is_what_is_measured(box: Box) -> None:
    assert box.ready is not None
    isolation = box.ready.isolation
    assert (isolation.class_, isolation.network) == ("namespace", "none")
    notes = " ".join(isolation.notes)
    assert re.search("kernel shared with the host", notes)
    assert re.search("not limited: .*disk", notes)


def test_the_doctor_finds_nothing_to_complain_of(bench: Bench) -> None:
    EXTENSION.check(bench.context())
    assert Deadline(1).left() is not None


_WITH_A_KEY = """
import ctypes, os, sys
number = {"x86_64": (250, 248), "aarch64": (219, 217)}[os.uname().machine]
kernel = ctypes.CDLL(None, use_errno=True)
if kernel.syscall(number[0], 1, b"test") < 0 or kernel.syscall(number[1], b"user", b"test-key", b"leaked", 6, -3) < 0:
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
"""
_READ_THE_KEY = """
import ctypes, os
number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
kernel, text = ctypes.CDLL(None), ctypes.create_string_buffer(6)
found = kernel.syscall(number, 10, -3, b"user", b"test-key", 0)
print(found > 0 and kernel.syscall(number, 11, found, text, 6) > 0 and text.raw)
"""
_A_BOX = """
import sys
from pathlib import Path
from tests.extensions.native.sandboxes import local_bench
read = ["python3", "-c", sys.argv[2]]
services = {"s": {"command": read, "restart": "never"}}
with local_bench(Path(sys.argv[1])).box(python=True, services=services, settle=0) as box:
    print(box.run(*read), box.run(*read, tty=True)[1], (box.directory / "logs/s.log").read_text())
"""


def test_keys_that_a_login_keeps_in_the_kernel_cannot_be_read_inside(tmp_path: Path) -> None:
    """Promise 28: they follow who possesses the session's keyring, whatever user and namespaces it has."""
    if os.uname().machine not in ("x86_64", "aarch64"):
        pytest.skip("the numbers of the calls are others here")
    run = [sys.executable, "-c", _WITH_A_KEY, sys.executable, "-c"]
    seen = subprocess.run([*run, _READ_THE_KEY], capture_output=True, check=False)
    if seen.returncode == 77:
        pytest.skip("no key can be made here")
    assert b"leaked" in seen.stdout
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [*run, _A_BOX, str(tmp_path / "work"), _READ_THE_KEY]
    done = subprocess.run(words, capture_output=True, check=True, env=environ)
    assert done.stdout.count(b"False") == 3
    assert b"leaked" not in done.stdout
