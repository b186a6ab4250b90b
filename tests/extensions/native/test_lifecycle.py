"""From nothing to ready to nothing, also when something goes wrong on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sandboxer.bootstrap import install
from sandboxer.errors import BackendError, Conflict, Invalid, NotConfigured, Timeout
from sandboxer.hosts.base import Streams
from sandboxer.models import Handle, Request
from sandboxer.names import MARKER_FILE, new_id
from tests.extensions.native.sandboxes import EXTENSION, Bench, Box, local_bench, over
from tests.installations import environment, lay_out
from tests.testbed.components import need
from tests.testbed.waiting import eventually

ROOT = os.geteuid() == 0


def test_ready_says_where_the_workspace_is(bench: Bench, box: Box) -> None:
    assert box.ready is not None
    assert box.ready.reachability.kind == "local"
    assert box.ready.reachability.remote_dir == f"{bench.work}/sbx-{box.sandbox_id}/workspace"
    box.sh("echo from-inside >/workspace/x")
    assert Path(box.paths.workspace, "x").read_text() == "from-inside\n"


def test_the_marker_carries_the_labels_and_a_renewal_shows_in_it(bench: Bench, box: Box) -> None:
    path = box.directory / MARKER_FILE
    marker = json.loads(path.read_text())
    assert marker["sandboxer.id"] == box.sandbox_id
    assert marker["sandboxer.extension"] == "ext.native"
    assert abs(marker["created_at"] - time.time()) < 3600
    EXTENSION.renew(box.handle, 2111111111.5, bench.context())
    assert json.loads(path.read_text())["sandboxer.expires"] == "2111111111"
    EXTENSION.renew(box.handle, None, bench.context())
    assert "sandboxer.expires" not in json.loads(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_directory_lets_nobody_else_in_and_what_root_runs_again_is_roots_own(box: Box) -> None:
    state = box.directory.stat()
    assert state.st_mode & 0o777 == (0o710 if ROOT else 0o700)
    assert state.st_uid == os.geteuid()
    assert (box.directory / "start").stat().st_mode & 0o777 == 0o600
    if ROOT:
        assert (state.st_gid, (box.directory / "workspace").stat().st_uid) == (box.paths.owner, box.paths.owner)
        for path in [box.directory / "run", *(box.directory / "run").rglob("*"), box.directory / "logs"]:
            assert path.stat().st_uid == 0


def test_a_repository_is_copied_and_belongs_to_the_sandbox(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config").write_text("x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/run.sh").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "sub/run.sh").chmod(0o750)
    (tmp_path / "out").symlink_to("/etc/passwd")
    with bench.box(repo=tmp_path) as box:
        assert box.sh("sub/run.sh; echo more >>sub/run.sh; ls -A; readlink out").split() == [
            "ran", "out", "sub", "/etc/passwd",
        ]  # fmt: skip
        assert Path("/etc/passwd").stat().st_uid == 0
    with bench.box(repo=tmp_path, git=True) as box:
        assert box.sh("cat .git/config") == "x"


def test_a_repository_that_is_no_directory_is_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(Invalid), bench.box(repo=tmp_path / "nope"):
        raise AssertionError("it must not be made")


def test_the_same_id_twice_is_a_conflict_and_harms_nothing(bench: Bench, box: Box) -> None:
    for _ in range(2):  # with and without what is remembered of the host
        with pytest.raises(Conflict):
            EXTENSION.provision(bench.spec(box.sandbox_id), bench.context())
    assert box.presence() == "running"


@pytest.mark.parametrize("victim", ["child", "monitor"])
def test_a_stopped_sandbox_is_started_again_by_exec_with_its_workspace(bench: Bench, victim: str) -> None:
    with bench.box() as box:
        box.sh("echo kept >/workspace/x; echo kept >/tmp/x")
        old = box.recorded()
        os.kill(old[victim], signal.SIGKILL)
        eventually(lambda: box.presence() == "stopped", within=5, what="the sandbox to be seen as stopped")
        assert box.sh("cat /workspace/x /tmp/x") == "kept\nkept"
        assert box.presence() == "running"
        assert over(old["child"]), "the old first process does not live on beside the new"


def test_a_sandbox_that_an_earlier_version_made_is_listed_and_removed_and_not_entered(bench: Bench) -> None:
    sandbox_id = new_id()
    directory = bench.work / f"sbx-{sandbox_id}"
    data: dict[str, Any] = {
        "work_dir": str(bench.work), "id": sandbox_id, "install": bench.install, "mode": "root" if ROOT else "user",
        "owner": os.geteuid(), "tools": {"setpriv": "/usr/bin/setpriv", "nsenter": "/usr/bin/nsenter"}, "cgroups": [],
        "namespaces": ["--user", "--mount"], "limits": ["--core=0:0"], "path": "/usr/bin:/bin", "network": "none",
        "services": ["web"], "settle": 2.0, "notes": ["kernel shared with the host; system calls are not filtered"],
    }  # fmt: skip
    for name in ("workspace", "tmp", "logs", "run/inside"):
        (directory / name).mkdir(parents=True)
    (directory / "logs/web.log").write_text("said\n")
    (directory / MARKER_FILE).write_text(json.dumps(bench.spec(sandbox_id).labels) + "\n")
    (directory / "run/handle.json").write_text(json.dumps(data) + "\n")
    (directory / "start").write_text(f"touch {directory}/started\n")
    handle = Handle(version=1, data=data)
    for known in (handle, EXTENSION.find(sandbox_id, bench.context())):
        assert known is not None
        assert EXTENSION.status(known, bench.context()).presence == "stopped"
        assert sandbox_id in {found.sandbox_id for found in EXTENSION.inventory(bench.context())}
        box = Box(bench, sandbox_id, known)
        with pytest.raises(Conflict, match="not entered any more") as caught:
            box.run("true")
        assert f"sandboxer recreate {sandbox_id}" in caught.value.hint
    assert not (directory / "started").exists()
    said = bytearray()
    streams = Streams(stdout=said.extend, stderr=said.extend)
    EXTENSION.logs(handle, streams, bench.context(), service="web", follow=False, tail=None)
    assert said == b"said\n"
    EXTENSION.renew(handle, 2111111111.0, bench.context())
    EXTENSION.teardown(handle, bench.context())
    assert not directory.exists()


def test_many_commands_at_once_on_a_stopped_sandbox_start_it_once(bench: Bench) -> None:
    with bench.box() as box:
        os.kill(box.recorded()["child"], signal.SIGKILL)
        eventually(lambda: box.presence() == "stopped", within=5, what="the end")
        seen: list[str] = []
        threads = [threading.Thread(target=lambda: seen.append(box.sh("readlink /proc/self/ns/pid"))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 6
        assert len(set(seen)) == 1


def test_a_command_that_comes_while_its_sandbox_ends_starts_it_again_or_ends_with_it(bench: Bench) -> None:
    """The first process shows its end in many ways: a namespace that may not be opened, or that takes no process."""
    codes = []
    with bench.box() as box:
        for number in range(60):
            assert box.run("true")[0] in (0, 137)
            child = box.recorded()["child"]
            ending = threading.Timer(number % 30 * 0.0004, _kill, [child])
            ending.start()
            codes.append(box.run("cat", stdin=b"again")[:2])
            ending.join()
    assert {code for code, _ in codes} <= {0, 137}, codes
    assert all(out == b"again" for code, out in codes if code == 0), codes


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_another_boot_is_told_from_this_one(bench: Bench) -> None:
    with bench.box() as box:
        holder = box.directory / "run/holder"
        text = holder.read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        holder.write_text(text.replace(boot, "00000000-0000-0000-0000-000000000000"))
        assert box.presence() == "stopped"
        holder.write_text(text)
        assert box.presence() == "running"


def test_what_has_lost_its_directory_is_found_by_its_processes(bench: Bench) -> None:
    with bench.box() as box:
        subprocess.run(["rm", "-rf", str(box.directory)], check=True)
        assert box.presence() == "stopped"
        assert EXTENSION.find(box.sandbox_id, bench.context()) is not None
        (found,) = [f for f in EXTENSION.inventory(bench.context()) if f.sandbox_id == box.sandbox_id]
        EXTENSION.teardown(found.handle, bench.context())
        assert box.presence() == "absent"
        assert bench.census(box.sandbox_id) == []


def test_a_process_inside_cannot_pass_for_another_sandboxs(bench: Bench, box: Box) -> None:
    ghost = f"{box.paths.tag.replace(box.sandbox_id, 'aaaaaaaaaaaa')}"
    box.run("sh", "-c", f"SANDBOXER_HOLDER={ghost} sleep 60 >/dev/null 2>&1 & exit 0")
    assert EXTENSION.find("aaaaaaaaaaaa", bench.context()) is None
    assert "aaaaaaaaaaaa" not in {found.sandbox_id for found in EXTENSION.inventory(bench.context())}
    assert "sleep" in box.sh("cat /proc/[0-9]*/comm 2>/dev/null; true").split()


def test_a_directory_of_another_installation_is_neither_found_nor_removed(bench: Bench, box: Box) -> None:
    other = Bench(bench.work, bench.host, install="someoneelse")
    assert EXTENSION.find(box.sandbox_id, other.context()) is None
    assert box.sandbox_id not in {found.sandbox_id for found in EXTENSION.inventory(other.context())}
    data: dict[str, Any] = {**box.handle.data, "install": "someoneelse"}
    with pytest.raises(Conflict):
        EXTENSION.teardown(Handle(version=1, data=data), other.context())
    assert box.presence() == "running"


@pytest.mark.parametrize("marker", [None, "", '{"sandboxer.id":"'])
def test_a_half_made_sandbox_is_found_by_its_id_and_removed(bench: Bench, marker: str | None) -> None:
    sandbox_id = new_id()
    directory = bench.work / f"sbx-{sandbox_id}"
    directory.mkdir(parents=True)
    if marker is not None:
        (directory / MARKER_FILE).write_text(marker)
    handle = EXTENSION.find(sandbox_id, bench.context())
    assert handle is not None
    assert EXTENSION.status(handle, bench.context()).presence == "stopped"
    if marker:
        with pytest.raises(BackendError, match="damaged"):
            EXTENSION.inventory(bench.context())
    else:
        assert sandbox_id not in {found.sandbox_id for found in EXTENSION.inventory(bench.context())}
    EXTENSION.teardown(handle, bench.context())
    assert not directory.exists()


@pytest.mark.parametrize(
    "data",
    [
        {"work_dir": "/", "id": "../../../etc", "install": "x"},
        {"work_dir": "/tmp/../etc", "id": "a2345678901b", "install": "x"},
        {"work_dir": "relative", "id": "a2345678901b", "install": "x"},
    ],
)
def test_a_handle_that_leads_elsewhere_is_refused(bench: Bench, data: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        EXTENSION.teardown(Handle(version=1, data=data), bench.context())


def test_teardown_removes_what_nobody_may_enter_and_follows_no_link(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with bench.box() as box:
        box.sh("mkdir -p a/b/c; echo x >a/b/c/f; ln -s $1 out; chmod 0 a/b/c a/b a", str(tmp_path))
        Path(box.paths.workspace, "direct").symlink_to(tmp_path)
        box.remove()
        assert box.presence() == "absent"
    assert (tmp_path / "precious").read_text() == "x"


@pytest.mark.skipif(not ROOT, reason="only root can mount something there")
def test_teardown_does_not_empty_what_somebody_has_mounted_in_the_workspace(bench: Bench, tmp_path: Path) -> None:
    """Promise 6: what is not ours is not removed; promise 5: and the sandbox is not told to be gone."""
    (tmp_path / "precious").write_text("x")
    with bench.box() as box:
        paths = Path(box.paths.workspace, "m")
        paths.mkdir()
        subprocess.run(["mount", "--bind", tmp_path, paths], check=True)
        try:
            with pytest.raises(BackendError, match="left mount") as caught:
                box.remove()
            assert caught.value.hint.startswith(f"umount {paths}")
            assert (tmp_path / "precious").exists()
            assert box.presence() != "absent"
        finally:
            subprocess.run(["umount", paths], check=True)


def test_a_link_in_the_place_of_a_sandbox_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace/precious").write_text("x")
    sandbox_id = new_id()
    link = bench.work / f"sbx-{sandbox_id}"
    link.symlink_to(tmp_path)
    handle = EXTENSION.find(sandbox_id, bench.context())
    assert handle is not None
    with pytest.raises(Conflict):
        EXTENSION.teardown(handle, bench.context())
    assert (tmp_path / "workspace/precious").exists()
    link.unlink()


def test_teardown_ends_commands_that_are_running(bench: Bench) -> None:
    with bench.box() as box:
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(box.run("sh", "-c", "echo up >x; exec sleep 60")[0]))
        thread.start()
        eventually((box.directory / "workspace/x").exists, within=10, what="the command to run")
        box.remove()
        thread.join(10)
        assert codes == [137]


def test_an_ending_that_leaves_something_says_so_and_can_be_repeated(bench: Bench) -> None:
    if not ROOT:
        pytest.skip("only root can make something that cannot be removed")
    with bench.box() as box:
        point = box.directory / "workspace/mounted"
        point.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", str(point)], check=True)
        try:
            with pytest.raises(BackendError, match=f"{box.paths.name} is gone: left mount {point}$") as caught:
                box.remove()
            assert caught.value.outcome == "unknown"
            assert EXTENSION.find(box.sandbox_id, bench.context()) is not None
        finally:
            subprocess.run(["umount", str(point)], check=True)


def test_the_look_is_unknown_when_the_work_directory_may_not_be_entered(bench: Bench) -> None:
    if ROOT:
        pytest.skip("root may enter everything")
    with bench.box() as box:
        bench.work.chmod(0)
        try:
            assert box.presence() == "unknown"
            with pytest.raises(BackendError):
                EXTENSION.find(new_id(), bench.context())
            with pytest.raises(BackendError):
                EXTENSION.inventory(bench.context())
        finally:
            bench.work.chmod(0o700)


def test_a_work_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:

    (tmp_path / "file").write_text("")
    blocked = local_bench(tmp_path / "file/work")
    with pytest.raises(BackendError, match="could not be made") as caught:
        EXTENSION.provision(blocked.spec(new_id()), blocked.context())
    assert "work_dir" in caught.value.hint
    assert EXTENSION.inventory(blocked.context()) == []


def test_a_host_without_the_programs_is_not_configured() -> None:
    from sandboxer.extensions.native.host_facts import parse, require

    with pytest.raises(NotConfigured, match="setpriv") as caught:
        require(parse("uid 0\nmachine x86_64\ntool unshare /usr/bin/unshare\n"))
    assert "util-linux" in caught.value.hint


def test_a_start_that_takes_too_long_is_a_timeout_and_leaves_only_what_can_be_found(bench: Bench) -> None:
    sandbox_id = new_id()
    with pytest.raises(Timeout):
        EXTENSION.provision(bench.spec(sandbox_id), bench.context(seconds=0.012))
    bench.remove(sandbox_id)


_CREATE = """
import sys
from pathlib import Path
from tests.extensions.native.sandboxes import EXTENSION, local_bench
bench = local_bench(Path(sys.argv[1]))
print("go", flush=True)
EXTENSION.wait_ready(EXTENSION.provision(bench.spec(sys.argv[2]), bench.context()), bench.context())
print("made", flush=True)
"""


@pytest.mark.parametrize("after", [0.0, 0.003, 0.006, 0.009, 0.012, 0.015, 0.018, 0.021, 0.025, 0.03, 0.04, 0.06])
def test_a_creator_that_is_killed_leaves_only_what_can_be_found_and_removed(bench: Bench, after: float) -> None:
    sandbox_id = new_id()
    words = [sys.executable, "-c", _CREATE, str(bench.work), sandbox_id]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as creator:
        assert creator.stdout is not None
        assert creator.stdout.readline() == b"go\n"
        until = time.monotonic() + after
        while time.monotonic() < until:
            pass
        creator.kill()
    # at once: what was being started may still be on its way
    bench.remove(sandbox_id)
    time.sleep(0.05)
    assert bench.census(sandbox_id) == []


@pytest.mark.parametrize(("said", "reason"), [("uname() { echo riscv64; }\n", "riscv64"), ("", "memfd_noexec is 2")])
def test_on_a_host_that_cannot_run_the_guard_nothing_is_made(tmp_path: Path, said: str, reason: str) -> None:
    from sandboxer.extensions.native import guard, scripts, start_file
    from sandboxer.extensions.native.handle import SandboxPaths
    from sandboxer.extensions.native.host_facts import parse, require

    assert " | ".join(guard.MACHINES) in start_file.script("claim")
    words = scripts.claim(SandboxPaths(str(tmp_path), "a" * 12, "install"), "{}")
    before, mark, after = words[2].partition("machine=$(uname -m)")
    before = said + before
    if not said:
        after = after.replace("</proc/sys/vm/memfd_noexec", f"<{tmp_path}/two")
        (tmp_path / "two").write_text("2\n")
    done = subprocess.run([*words[:2], before + mark + after, *words[3:]], capture_output=True, text=True, check=True)
    with pytest.raises(NotConfigured, match=reason) as caught:
        require(parse(done.stdout))
    assert caught.value.hint
    assert list(tmp_path.glob("sbx-*")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_work_directory_where_nothing_can_be_executed_is_told(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "none", work], check=True)
    try:
        with pytest.raises(NotConfigured, match="nothing can be executed") as caught, local_bench(work).box():
            raise AssertionError
        assert "noexec" in caught.value.hint
    finally:
        subprocess.run(["umount", work], check=True)


def test_a_work_directory_may_be_called_as_one_likes_but_for_what_no_record_can_hold(tmp_path: Path) -> None:
    (tmp_path / "it's $(id)\n*").mkdir()
    with local_bench(tmp_path / "it's $(id)\n*" / "-work").box() as box:
        os.kill(box.recorded()["child"], signal.SIGKILL)
        eventually(lambda: box.presence() == "stopped", within=60, what="the end")
        assert box.sh("echo works") == "works"
        assert [found.sandbox_id for found in EXTENSION.inventory(box.bench.context())] == [box.sandbox_id]
    bench = local_bench(Path(os.fsdecode(bytes(tmp_path) + b"/\xff/work")))
    with pytest.raises(Invalid, match="UTF-8"):
        EXTENSION.provision(bench.spec(new_id()), bench.context())
    assert EXTENSION.inventory(bench.context()) == []
    assert EXTENSION.find(new_id(), bench.context()) is None
    assert not bench.work.parent.exists()


def test_a_home_that_is_not_utf_8_is_refused_before_anything_is_made_or_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("bwrap")
    home = tmp_path / os.fsdecode(b"home\xff")
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    lay_out(tmp_path, config="hosts: {}\n")
    here = install(environment(tmp_path, HOME=str(home)), relay_in_background=False)
    plan = here.manager.plan(Request(profile="profile.native"), base=tmp_path)
    with pytest.raises(Invalid, match="UTF-8"):
        here.manager.create(plan)
    assert here.manager.list() == []
    assert list(home.iterdir()) == []
    assert here.manager.reconcile(apply=True, force=True).remaining == []
    here.close()
