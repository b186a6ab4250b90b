"""What ext.saas-stub is for: money and routes, without an account and without the outside."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import msgspec
import pytest

from sandboxer.errors import Conflict, Invalid, NotFound, Timeout, Unavailable, Unsupported
from sandboxer.extensions.base import Context, Exec
from sandboxer.extensions.saas_stub import SaasStubExtension, SaasStubOptions
from sandboxer.hosts.base import Streams
from sandboxer.hosts.local import LocalHost
from sandboxer.models import Handle, HostSettings, Requirements, Resources
from sandboxer.names import new_id
from sandboxer.testing.conformance import Bench, Made, make
from sandboxer.timing import Deadline
from tests.installations import environment, lay_out
from tests.testbed.waiting import eventually

STUB = SaasStubExtension()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(
        extension=SaasStubExtension,
        extension_id="ext.saas-stub",
        hosts=lambda: LocalHost("local", HostSettings(work_dir=str(tmp_path / "work"))),
        census=lambda: [str(path) for path in tmp_path.glob("work/saas-stub/*")],
    )


@pytest.fixture
def made(bench: Bench) -> Made:
    return make(bench, bench.hosts())


def _context(made: Made) -> Context:
    return made.bench.context(made.host)


def test_it_is_billed_for_what_is_required_and_no_less_than_what_is_asked() -> None:
    """Promise 19 begins with an allotment that is the same at the estimate and at the bill."""
    asked = SaasStubOptions(vcpu=2, memory_gib=4)
    fitted = STUB.fit(asked, Requirements(vcpu=3.5, memory_gib=2, disk_gib=50))
    assert STUB.estimate_cost(fitted) == Resources(vcpu=3.5, memory_gib=4, disk_gib=50)


@pytest.mark.parametrize(
    "require",
    [Requirements(gpu="T4"), Requirements(network="none"), Requirements(vcpu=8.5), Requirements(disk_gib=101)],
)
def test_what_it_has_not_is_refused_by_name(require: Requirements) -> None:
    with pytest.raises(Unsupported) as caught:
        STUB.fit(SaasStubOptions(), require)
    assert any(name in caught.value.message for name in ("gpu", "network", "vcpu", "disk_gib"))


def test_its_allotment_is_known_until_it_is_gone(made: Made) -> None:
    assert made.ready.resources == Resources(vcpu=2, memory_gib=1, disk_gib=5)
    assert STUB.meter_actual(made.handle, _context(made)) == made.ready.resources
    STUB.teardown(made.handle, _context(made))
    assert STUB.meter_actual(made.handle, _context(made)) is None


def test_it_says_that_it_isolates_nothing(made: Made) -> None:
    assert made.ready.isolation.class_ == "none"
    assert any("isolates nothing" in note for note in made.ready.isolation.notes)


def test_the_last_lines_of_a_log_that_is_one_huge_hole_come_at_once(made: Made) -> None:
    assert made.run("sh", "-c", "truncate -s 4T ../log && echo last >>../log")[0] == 0
    out = bytearray()
    streams = Streams(stdout=out.extend, stderr=out.extend)
    STUB.logs(made.handle, streams, _context(made), service=None, follow=False, tail=1)
    assert out.endswith(b"\0last\n")
    assert len(out) < 3_000_000


def test_a_stopped_one_runs_nothing_and_ends_what_ran(made: Made) -> None:
    running = threading.Thread(target=lambda: made.run("sh", "-c", "echo $$ > pid; sleep 300"))
    running.start()
    pid = Path(made.ready.reachability.remote_dir or "", "pid")
    eventually(lambda: pid.exists() and pid.read_text().strip(), within=5, what="the command runs")
    STUB.stop(made.handle, _context(made))
    running.join(10)
    assert not running.is_alive()
    assert not Path("/proc", pid.read_text().strip()).exists()
    with pytest.raises(Conflict, match="stopped"):
        made.run("true")
    STUB.start(made.handle, None, _context(made))
    assert made.run("true")[0] == 0


def test_tearing_down_ends_what_runs(made: Made) -> None:
    ended = threading.Thread(target=lambda: made.run("sh", "-c", "echo $$ > pid; sleep 300"))
    ended.start()
    pid = Path(made.ready.reachability.remote_dir or "", "pid")
    eventually(lambda: pid.exists() and pid.read_text().strip(), within=5, what="the command runs")
    number = pid.read_text().strip()
    STUB.teardown(made.handle, _context(made))
    ended.join(10)
    assert not Path("/proc", number).exists()


def test_a_snapshot_that_is_gone_cannot_be_restored(made: Made) -> None:
    kept = STUB.snapshot(made.handle, "snap-abcdefghijkl", _context(made))
    STUB.delete_snapshot(kept, _context(made))
    with pytest.raises(NotFound) as caught:
        STUB.restore_from_snapshot(made.bench.spec(new_id()), kept, _context(made))
    assert caught.value.fault == "backend"


def test_a_snapshot_without_time_is_not_taken(made: Made) -> None:
    with pytest.raises(Timeout):
        STUB.snapshot(made.handle, "snap-abcdefghijkl", made.bench.context(made.host, seconds=0))
    assert not [name for name in made.bench.census() if "snapshots" in name]


def test_a_provider_in_trouble_can_be_played(bench: Bench) -> None:
    spec = bench.spec(new_id())
    failing = msgspec.structs.replace(spec, options=SaasStubOptions(fails="provision"))
    with pytest.raises(Unavailable, match="capacity"):
        STUB.provision(failing, bench.context(bench.hosts()))
    assert not [name for name in bench.census() if "sbx-" in name]


def test_an_upload_does_not_leave_the_workspace(made: Made, tmp_path: Path) -> None:
    """Promise 27: the machine's own files are not overwritten by an archive with a way out in it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("../../escaped")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    packed.seek(0)
    with pytest.raises(Invalid, match="not unpacked"):
        STUB.put_archive(made.handle, "sub", packed, _context(made))
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE])
@pytest.mark.parametrize("way", ["", "up/"])
def test_an_upload_by_a_whole_path_touches_nothing_outside(
    made: Made, tmp_path: Path, *, kind: bytes, way: str
) -> None:
    """It lands below the directory, as with other tars, or is refused."""
    (tmp_path / "kept").write_text("kept")
    made.run("sh", "-c", f"mkdir sub; ln -s {tmp_path} sub/up")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo()
        member.name, member.type, member.linkname = f"{way}kept" if way else str(tmp_path / "kept"), kind, "elsewhere"
        tar.addfile(member)
    packed.seek(0)
    if way:
        with pytest.raises(Invalid):
            STUB.put_archive(made.handle, "sub", packed, _context(made))
    else:
        STUB.put_archive(made.handle, "sub", packed, _context(made))
    assert (tmp_path / "kept").read_text() == "kept"


def test_exec_on_one_that_is_gone_says_so() -> None:
    gone = Handle(version=1, data={"directory": "/nonexistent/sbx-a"})
    streams = Streams(stdout=lambda _: None, stderr=lambda _: None)
    context = Context(host=LocalHost("local", HostSettings()), install="x", deadline=Deadline(5))
    with pytest.raises(Exception, match="the directory is gone"):
        STUB.exec(gone, Exec(argv=("true",)), streams, context)


_NO_OUTSIDE = """\
import socket, sys
def look(event, args):
    if event in ("socket.connect", "socket.getaddrinfo") and getattr(args[0], "family", None) != socket.AF_UNIX:
        sys.stderr.write(f"OUTSIDE {event} {args[1:]}")
        import os; os._exit(99)
sys.addaudithook(look)
from sandboxer.cli.main import main
sys.argv[0] = "sandboxer"
sys.exit(main())
"""


def test_the_whole_life_of_one_makes_no_call_to_the_outside(tmp_path: Path) -> None:
    """Metered from end to end, with the profile that is shipped, and without the network."""
    lay_out(tmp_path)

    def sandboxer(*words: str) -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "-c", _NO_OUTSIDE, *words, "--json"], env=environment(tmp_path), capture_output=True
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        document: dict[str, object] = json.loads(done.stdout)
        return document

    sandboxer("credits", "add", "1")
    made = sandboxer("create", "--profile", "profile.saas-stub")
    assert made["state"] == "ready"
    assert made["cost"] == {"pricing_model": "metered", "estimated_usd": "0.12", "actual_usd": None}
    assert made["placement"] == {"host": None}
    ended = sandboxer("destroy", str(made["id"]))
    assert list(tmp_path.glob("work/saas-stub/sbx-*")) == []
    assert ended


def test_the_look_outside_is_seen(tmp_path: Path) -> None:
    """The one above would pass if the hook saw nothing."""
    script = _NO_OUTSIDE.split("from sandboxer", maxsplit=1)[0]
    script += "import socket; socket.socket().connect(('127.0.0.1', 1))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert (done.returncode, b"OUTSIDE" in done.stderr) == (99, True)


@pytest.mark.parametrize("size", [-1, math.nan, math.inf])
def test_a_size_that_cannot_be_billed_is_refused_and_not_free(size: float) -> None:
    for name in ("vcpu", "memory_gib", "disk_gib"):
        with pytest.raises(msgspec.ValidationError, match=name):
            msgspec.convert({name: size}, SaasStubOptions)
