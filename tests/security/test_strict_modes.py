"""Finding 6: nothing is run from a place where another user can put something."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from sandboxer.bootstrap import Installation
from sandboxer.errors import BackendError, Conflict, Denied
from sandboxer.extensions.base import Exec
from sandboxer.hosts.base import Host, Result, Streams
from sandboxer.hosts.local import LocalHost
from sandboxer.hosts.ssh.host import SshHost
from sandboxer.hosts.trees import strict_modes
from sandboxer.models import HostSettings, Request
from sandboxer.timing import Deadline
from tests.cli.running import Command
from tests.extensions.native.sandboxes import Bench, over
from tests.installations import create, installed, lay_out
from tests.testbed.components import need
from tests.testbed.sshd import Sshd
from tests.testbed.waiting import eventually

STRANGER = 48_221
"""A uid that nobody has."""


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    need("sshd")
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(params=["here", "over SSH"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    if request.param == "here":
        yield LocalHost("local", HostSettings(work_dir=str(tmp_path / "work")))
        return
    server = request.getfixturevalue("sshd")
    made = SshHost("remote", server.settings(tmp_path / "work"))
    yield made
    made.close()


def refused(host: Host, path: Path) -> Denied | None:
    try:
        host.check_place(str(path), Deadline(60))
    except Denied as error:
        return error
    return None


def test_a_place_of_our_own_is_taken_there_or_not(host: Host, tmp_path: Path) -> None:
    assert refused(host, tmp_path / "new" / "work") is None
    assert not (tmp_path / "new").exists()
    (tmp_path / "work").mkdir()
    (tmp_path / "link").symlink_to("work")
    for path in (tmp_path / "work", tmp_path / "link", tmp_path / "link" / "below"):
        assert refused(host, path) is None, path


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o733])
def test_a_place_that_everybody_may_write_is_refused(host: Host, tmp_path: Path, mode: int) -> None:
    open_ = tmp_path / "it's open"
    (open_ / "work").mkdir(parents=True)
    open_.chmod(mode)
    for path in (open_, open_ / "work", open_ / "work" / "new"):
        error = refused(host, path)
        assert error is not None
        assert "can be written by everybody" in error.message
        assert error.hint.startswith(f"on {host.name}: chmod o-w '{tmp_path}/it'\"'\"'s open'; or set ")
    open_.chmod(0o1777)
    assert refused(host, open_ / "work") is None


def test_what_is_missing_in_a_sticky_place_is_made_before_anybody_else_makes_it(host: Host, tmp_path: Path) -> None:
    (tmp_path / "sticky").mkdir()
    (tmp_path / "sticky").chmod(0o1777)
    assert refused(host, tmp_path / "sticky" / "new" / "work") is None
    assert oct((tmp_path / "sticky" / "new").stat().st_mode & 0o7777) == "0o700"
    assert (tmp_path / "sticky" / "new" / "work").is_dir()


def test_the_place_of_another_user_is_refused(host: Host, tmp_path: Path) -> None:
    need("root")
    theirs = tmp_path / "theirs"
    (theirs / "work").mkdir(parents=True)
    os.chown(theirs, STRANGER, STRANGER)
    (tmp_path / "way").symlink_to("theirs")
    for path in (theirs, theirs / "work", theirs / "none" / "yet", tmp_path / "way" / "work"):
        error = refused(host, path)
        assert error is not None
        assert f"belongs to another user (uid {STRANGER})" in error.message
        assert f"chown root {theirs}" in error.hint


def test_a_link_of_another_user_on_the_way_is_refused(host: Host, tmp_path: Path) -> None:
    need("root")
    (tmp_path / "work").mkdir()
    (tmp_path / "link").symlink_to("work")
    os.chown(tmp_path / "link", STRANGER, STRANGER, follow_symlinks=False)
    assert refused(host, tmp_path / "link" / "below") is not None


def test_what_compose_keeps_in_a_shared_work_directory_is_looked_at_too(host: Host, tmp_path: Path) -> None:
    need("root")
    (tmp_path / "work" / ".sandboxer").mkdir(parents=True)
    (tmp_path / "work").chmod(0o1777)
    os.chown(tmp_path / "work" / ".sandboxer", STRANGER, STRANGER)
    error = refused(host, tmp_path / "work")
    assert error is not None
    assert "/work/.sandboxer " in error.message


def test_a_group_counts_when_somebody_else_is_in_it(host: Host, tmp_path: Path) -> None:
    need("root")
    groups = {"roots": 0, "daemons": 1, "nobodys": STRANGER}  # daemon's first group has daemon in it
    for name, group in groups.items():
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o775)
        os.chown(tmp_path / name, 0, group)
    assert refused(host, tmp_path / "roots") is None
    assert refused(host, tmp_path / "nobodys") is None
    error = refused(host, tmp_path / "daemons")
    assert error is not None
    assert "by a group that others are in" in error.message
    assert "chmod g-w" in error.hint


@pytest.mark.parametrize("said", ["", "owner", "owner x /a", "what 1 /a", "fine\nfine"])
def test_an_answer_that_makes_no_sense_is_no_yes(said: str) -> None:
    with pytest.raises(BackendError):
        strict_modes.answered(Result(0, said.encode(), b""), "/a", "h")
    with pytest.raises(BackendError):
        strict_modes.answered(Result(1, b"fine\n", b"no"), "/a", "h")


def ran(here: Installation, record_id: str) -> int:
    silent = Streams(stdin=io.BytesIO(b""), stdout=lambda _data: None, stderr=lambda _data: None)
    return here.manager.exec(record_id, Exec(argv=("true",)), silent, timeout=60)


@pytest.mark.parametrize("where", ["local", "remote"])
def test_nothing_is_run_from_there_but_it_can_be_taken_away(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """As root, whose work directory a stranger owns: all that uses it is refused, and destroy is not."""
    need("root", "bwrap")
    base = tmp_path / "base"
    work = base / "work"
    base.mkdir()
    hosts = f"hosts: {{local: {{work_dir: {work}}}}}\n"
    if where == "remote":
        server = request.getfixturevalue("sshd")
        hosts = (
            f"hosts: {{remote: {{address: {server.host}, port: {server.port}, user: {server.user}, "
            f"identity: {server.identity}, known_hosts: {server.known_hosts}, work_dir: {work}}}}}\n"
        )
    lay_out(tmp_path, config=hosts)
    here = installed(tmp_path)
    request.addfinalizer(here.close)
    record = create(here, profile="profile.native", host=where)
    assert ran(here, record.id) == 0
    again = installed(tmp_path)  # what was well a moment ago is remembered for a minute by who looked
    request.addfinalizer(again.close)
    os.chown(base, STRANGER, STRANGER)
    with pytest.raises(Denied, match="another user"):
        ran(again, record.id)
    with pytest.raises(Denied, match="another user"):
        again.manager.copy(record.id, source="x", target=str(tmp_path / "x"), inward=False)
    silent = Streams(stdin=io.BytesIO(b""), stdout=lambda _data: None, stderr=lambda _data: None)
    with pytest.raises(Denied, match="another user"):
        again.manager.logs(record.id, silent)
    with pytest.raises(Denied, match="another user"):
        again.manager.extend_ttl(record.id, 60)
    before = sorted(work.iterdir())
    with pytest.raises(Denied, match="another user") as caught:
        again.manager.create(again.manager.plan(Request(profile="profile.native", host=where)))
    assert "chown root" in caught.value.hint
    assert sorted(work.iterdir()) == before
    with pytest.raises(Denied, match="another user"):
        again.manager.recreate(record.id)
    assert again.manager.get(record.id).state == "ready", "what is known beforehand destroys nothing"
    assert again.manager.destroy(record.id).state == "destroyed"
    assert not (work / f"sbx-{record.id}").exists()


def test_root_that_works_on_another_users_data_is_told_by_doctor(tmp_path: Path) -> None:
    need("root")
    lay_out(tmp_path)
    (tmp_path / "data").mkdir(mode=0o700)
    os.chown(tmp_path / "data", STRANGER, STRANGER)
    os.chown(tmp_path / "config", STRANGER, STRANGER)
    (tmp_path / "work").mkdir()
    os.chown(tmp_path / "work", STRANGER, STRANGER)
    answer = Command(tmp_path)("doctor", "--json")
    found = {(one["subject"], one["level"]): one for one in answer.document["findings"]}
    assert f"uid {STRANGER}" in found["data directory", "warning"]["text"]
    assert "chown root" in found["work directory on local", "error"]["hint"]


def test_an_ordinary_user_is_held_to_the_same() -> None:
    """Run as an unprivileged user: their own place is taken, root's too, and one that a third may write is not."""
    need("root")
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        top.chmod(0o755)
        for name, mode in (("mine", 0o755), ("open", 0o777)):
            (top / name / "work").mkdir(parents=True)
            (top / name).chmod(mode)
            for path in (top / name, top / name / "work"):
                os.chown(path, STRANGER, STRANGER)
        script = (
            "import os, sys; sys.path[:0] = [sys.argv[4]]; from pathlib import Path; "
            "from sandboxer.hosts.trees import strict_modes; import grp, pwd; "
            f"os.setgroups([]); os.setgid({STRANGER}); os.setuid({STRANGER}); "
            "print([strict_modes.examine(Path(path)) is None for path in sys.argv[1:4]])"
        )
        source = str(Path(strict_modes.__file__).parents[2])
        words = [sys.executable, "-c", script, f"{top}/mine/work", "/usr/share", f"{top}/open/work", source]
        done = subprocess.run(words, capture_output=True, check=False, timeout=60)
    assert done.stdout == b"[True, True, False]\n", done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_destroy_believes_and_removes_nothing_that_a_stranger_put_in_a_sandboxs_place(host: Host) -> None:
    """It killed whom the stranger's records named, and emptied what lay at the path by then."""
    work = Path(host.work_dir(Deadline(60)))
    bench = Bench(work, host)
    words = ["unshare", "--pid", "--fork", "--kill-child", "sleep", "1000"]
    with bench.box() as box, subprocess.Popen(words, start_new_session=True) as bystander:
        child = eventually(lambda: children(bystander.pid), within=60, what="the first of a namespace")
        processes = box.recorded().values()
        ours = box.directory.rename(work / "moved")
        forged = work / f"sbx-{box.sandbox_id}"
        (forged / "run").mkdir(parents=True)
        (forged / "track").mkdir(0o700)
        (forged / "track" / record_of(bystander.pid)).touch()
        number, start, boot = record_of(int(child)).split(".")
        record = "".join(f"{what} {number} {start} {boot}\n" for what in ("monitor", "child", "up"))
        (forged / "run/holder").write_text(record)
        (forged / "workspace").mkdir()
        (forged / "workspace/theirs").touch()
        for path in (forged, *forged.rglob("*")):
            os.chown(path, STRANGER, STRANGER)
        with pytest.raises(Conflict, match="another"):
            box.remove()
        assert bystander.poll() is None
        assert (forged / "workspace/theirs").exists()
        for pid in processes:
            eventually(partial(over, pid), within=60, what="the end of the sandbox")
        bystander.kill()
        shutil.rmtree(forged)
        ours.rename(box.directory)
    assert list(work.iterdir()) == []


def children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()


def record_of(pid: int) -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{pid}.{Path(f'/proc/{pid}/stat').read_text().rpartition(') ')[2].split()[19]}.{boot}"
