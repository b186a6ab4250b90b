"""The self-check from end to end, in real boxes: a good one, and one for each fault that it has to find."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sandboxer import __version__, selfcheck
from sandboxer.errors import BackendError, NotConfigured, SandboxerError, Timeout, Unsupported
from sandboxer.extensions.base import Context, Exec
from sandboxer.extensions.native import seccomp
from sandboxer.extensions.native.seccomp import bpf
from sandboxer.hosts.base import Streams
from sandboxer.hosts.local import LocalHost
from sandboxer.models import Handle, HostSettings, Isolation, SyscallFilter
from sandboxer.selfcheck import remote_probe
from sandboxer.timing import Deadline
from tests.selfcheck.environments import Box, Faults, Mute, usable
from tests.testbed import processes
from tests.testbed.syscall_filter import LOADER
from tests.testbed.waiting import eventually

pytestmark = pytest.mark.skipif(not usable() or os.geteuid() != 0, reason="needs bwrap, and root to drop from")


@pytest.fixture
def work() -> Iterator[Path]:
    """A work directory that an ordinary user can pass through (pytest's own are private): else modes would hide what
    namespaces should."""
    with tempfile.TemporaryDirectory(prefix="sandboxer-selfcheck-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def context(work: Path, **environ: str) -> Context:
    host = LocalHost("local", HostSettings(work_dir=str(work)), environ={**os.environ, **environ})
    return Context(host=host, install="install", deadline=Deadline(60))


def check(box: Box, ctx: Context, *, network: str = "none", syscalls: SyscallFilter = "unknown") -> dict[str, Any]:
    handle, ready = box.establish(ctx, network=network, syscalls=syscalls)
    try:
        return selfcheck.run(box, handle, ready, ctx, version=__version__)
    finally:
        left = [p for p in Path(ctx.host.work_dir(ctx.deadline)).rglob(".sandboxer-canary*") if p.is_file()]
        box.teardown(handle, ctx)
        assert left == []


def contradicted(box: Box, ctx: Context, *, network: str = "none", syscalls: SyscallFilter = "unknown") -> list[str]:
    with pytest.raises(BackendError) as caught:
        check(box, ctx, network=network, syscalls=syscalls)
    assert caught.value.details is not None
    wrong = caught.value.details["contradictions"]
    assert all(item["claim"] in caught.value.message and item["measured"] for item in wrong)
    report = caught.value.details["report"]
    assert report["isolation"]["contradictions"] == wrong
    json.dumps(caught.value.document())
    return [item["claim"] for item in wrong]


def test_a_good_box_holds_what_it_claims_and_the_report_says_so(work: Path) -> None:
    report = check(Box(), context(work))
    assert report.keys() == {"version", "host", "isolation"}
    assert report["version"] == __version__
    assert report["host"]["memory_total_bytes"] > 0
    isolation = report["isolation"]
    assert isolation["claimed"] == {"class": "namespace", "network": "none", "syscalls": "unknown", "notes": []}
    assert isolation["contradictions"] == isolation["unknown"] == []
    assert len(isolation["holds"]) > 10
    seen = isolation["measured"]
    assert seen["failed"] == {}
    assert seen["boundary"] == "namespaces"
    assert (seen["sees_host_files"], seen["sees_host_processes"], seen["reaches_host"]) == (False, False, False)
    assert (seen["writes_to_host"], seen["root_on_host"]) == (False, False)
    assert seen["uid"] == seen["host_uid"] == 61234
    assert seen["interfaces"] == ["lo"]
    assert seen["sandboxer"] == __version__
    assert len(json.dumps(report)) < 8192


SHARE_TMP = ("--bind", "/var/tmp", "/var/tmp")
HOLD_OPEN = ("sh", "-c", 'exec "$@" 7</etc/ssl', "sh")
PLANTED: dict[str, tuple[Faults, set[str]]] = {
    "host network": (Faults(without=("--unshare-net",)), {"no network", "network of its own"}),
    "host processes": (Faults(without=("--unshare-pid",)), {"the host's processes are hidden"}),
    "host name": (Faults(without=("--unshare-uts",)), {"host name of its own"}),
    "host ipc": (Faults(without=("--unshare-ipc",)), {"inter-process communication of its own"}),
    "a writable place": (Faults(more=SHARE_TMP), {"writes stay inside"}),
    "an open directory": (Faults(before=HOLD_OPEN), {"no open files of the host"}),
    "root": (Faults(user=False), {"not root on the host"}),
    "our environment": (Faults(clean_env=False, without=("--clearenv",)), {"our environment stays out"}),
    "root's powers": (
        Faults(user=False, without=("--unshare-user", "--cap-drop"), more=("--cap-add", "ALL")),
        {"no capabilities over the host", "not root on the host", "read-only mounts stay so"},
    ),
    "all of the host": (
        Faults(user=False, more=("--ro-bind", "/", "/mnt/host")),
        {"the host's files are hidden", "not root on the host"},
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name: str, work: Path) -> None:
    faults, expected = PLANTED[name]
    found = set(contradicted(Box(faults), context(work, SOMETHING_OF_OURS="a value that is ours")))
    assert expected <= found
    if not faults.before and faults.user:
        assert found == expected


def test_the_work_directory_under_another_name_is_found(work: Path) -> None:
    assert contradicted(Box(Faults(more=("--ro-bind", str(work), "/mnt/others"))), context(work)) == [
        "the host's files are hidden"
    ]


def test_another_sandboxs_workspace_is_found(work: Path) -> None:
    other = work / "sbx-bbbbbbbbbbbb" / "workspace"
    other.mkdir(parents=True)
    found = contradicted(Box(Faults(more=("--ro-bind", str(other), "/mnt/other"))), context(work))
    assert found == ["the host's files are hidden"]


def test_a_service_of_the_host_is_found(work: Path) -> None:
    path = work / "agent.sock"
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(path))
        service.listen(4)
        path.chmod(0o666)
        box = Box(Faults(more=("--ro-bind", str(path), str(path))))
        assert contradicted(box, context(work, SSH_AUTH_SOCK=str(path))) == ["the host's services are out of reach"]


def test_the_hosts_network_is_no_fault_where_it_is_claimed(work: Path) -> None:
    report = check(Box(Faults(without=("--unshare-net",))), context(work), network="host")
    assert report["isolation"]["measured"]["reaches_host"] is True
    assert "127.0.0.1" in report["isolation"]["measured"]["host_addresses"]


BEYOND_A_FILTER = ["the first process is out of reach", "the kernel's own files are masked"]
"""What this box of bubblewrap alone does not have."""


def under(program: bytes) -> Box:
    """A box whose programs are started under a filter."""
    return Box(Faults(inside=("/usr/bin/python3", "-c", LOADER, program.hex())))


def test_a_filter_that_is_claimed_and_there_holds(work: Path) -> None:
    ours = under(seccomp.program(os.uname().machine))
    seen = check(ours, context(work))["isolation"]["measured"]
    assert (seen["system_calls_filtered"], seen["open_calls"], seen["failed"]) == (True, [], {})
    assert contradicted(ours, context(work), syscalls="filtered") == BEYOND_A_FILTER


def test_a_filter_that_is_claimed_and_not_there_is_found_out(work: Path) -> None:
    assert contradicted(Box(), context(work), syscalls="filtered") == ["system calls are filtered", *BEYOND_A_FILTER]


def test_a_filter_that_lets_a_closed_call_through_is_found_out(work: Path) -> None:
    everything = bpf.encode([bpf.answer(0x7FFF0000)])
    found = contradicted(under(everything), context(work), syscalls="filtered")
    assert found == ["system calls are filtered", *BEYOND_A_FILTER]


def test_what_the_kernel_tells_of_the_machine_is_measured_and_a_mask_is_seen(work: Path) -> None:
    readable = check(Box(), context(work))["isolation"]["measured"]["kernel_files"]
    assert readable
    masks = tuple(word for path in readable for word in ("--dev-bind", "/dev/null", path))
    assert check(Box(Faults(more=masks)), context(work))["isolation"]["measured"]["kernel_files"] == []


def test_a_claim_of_another_kernel_is_contradicted_by_the_boot(work: Path) -> None:
    box, ctx = Box(), context(work)
    handle, ready = box.establish(ctx)
    claimed = Isolation(class_="vm", network="none")
    with pytest.raises(BackendError, match="a kernel of its own"):
        selfcheck.run(box, handle, replace(ready, isolation=claimed), ctx, version=__version__)


def test_the_probe_stays_inside_and_can_be_run_again(work: Path) -> None:
    box, ctx = Box(), context(work)
    handle, ready = box.establish(ctx)
    selfcheck.run(box, handle, ready, ctx, version=__version__)
    again = [
        ("python3", "/workspace/.sandboxer/sandboxer.pyz"),
        ("env", "PYTHONPATH=/workspace/.sandboxer/sandboxer.pyz", "python3", "-m", "sandboxer.selfcheck.probe"),
    ]
    for argv in again:
        out, err = bytearray(), bytearray()
        code = box.exec(handle, Exec(argv=argv), Streams(stdout=out.extend, stderr=err.extend), ctx)
        assert (code, bytes(err)) == (0, b"")
        assert json.loads(out)["sandboxer"] == __version__


def test_sandboxer_inside_tells_its_version(work: Path) -> None:
    box, ctx = Box(), context(work)
    handle, ready = box.establish(ctx)
    selfcheck.run(box, handle, ready, ctx, version=__version__)
    out, err = bytearray(), bytearray()
    argv = ("python3", "/workspace/.sandboxer/sandboxer.pyz", "--version")
    assert box.exec(handle, Exec(argv=argv), Streams(stdout=out.extend, stderr=err.extend), ctx) == 0, err
    assert out.decode() == f"sandboxer {__version__}\n"


def test_what_is_put_inside_is_sandboxer_and_needs_nothing_else() -> None:
    tarred = BytesIO(remote_probe.package_archive())
    words = ["tar", "-x", "-O", "-f", "-", remote_probe.PACKAGE]
    packed = subprocess.run(words, input=tarred.getvalue(), capture_output=True, check=True).stdout
    with zipfile.ZipFile(BytesIO(packed)) as archive:
        files = archive.namelist()
    assert {"__main__.py", "sandboxer/__init__.py", "sandboxer/manager/__init__.py"} <= set(files)
    assert not [name for name in files if name.startswith(("sandboxer/testing/", "sandboxer/api/"))]


class Saying(Box):
    """A box whose python3 is something else."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self.said = words

    def exec(self, handle: Handle, request: Exec, streams: Streams, ctx: Context) -> int:
        return super().exec(handle, Exec(argv=self.said), streams, ctx)


OLD = "import sys, runpy; sys.version_info = (3, 8, 1); runpy.run_path('/workspace/.sandboxer/sandboxer.pyz')"
UNFIT: dict[str, tuple[tuple[str, ...], type[SandboxerError], str]] = {
    "no python": (("no-such-python",), BackendError, "ended with 1"),
    "python not found": (("sh", "-c", "exit 127"), NotConfigured, "no python3 inside"),
    "an old python": (("python3", "-c", OLD), NotConfigured, "Python 3.8"),
    "a crash": (("sh", "-c", "echo kaputt >&2; exit 3"), BackendError, "kaputt"),
    "babble": (("echo", "hello"), BackendError, "no answer of its own"),
    "too much": (("sh", "-c", "yes | head -c 1000000"), BackendError, "no answer of its own"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_probe_that_cannot_run_is_a_clear_error_and_leaves_nothing(name: str, work: Path) -> None:
    words, kind, message = UNFIT[name]
    with pytest.raises(kind, match=message) as caught:
        check(Saying(*words), context(work))
    assert caught.value.hint


def test_a_probe_that_hangs_ends_with_the_deadline_and_leaves_nothing(work: Path) -> None:
    ctx = context(work)
    box = Saying("sleep", "60")
    with pytest.raises(Timeout):
        check(box, Context(host=ctx.host, install="install", deadline=Deadline(0.8)))
    eventually(
        lambda: not [process for process in processes.everyone() if str(work) in process.command],
        within=5,
        what="the probe and its box are gone",
    )


class Interrupted(Box):
    """Ctrl-C comes while the probe runs."""

    def exec(self, handle: Handle, request: Exec, streams: Streams, ctx: Context) -> int:
        assert list(Path(handle.data["workspace"]).parent.glob(".sandboxer-canary*"))
        raise KeyboardInterrupt


def test_ctrl_c_takes_the_planted_file_along(work: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        check(Interrupted(), context(work))


def test_an_extension_that_cannot_execute_is_unsupported(work: Path) -> None:
    ctx = context(work)
    handle, ready = Box().establish(ctx)
    with pytest.raises(Unsupported, match="Mute") as caught:
        selfcheck.run(Mute(), handle, ready, ctx, version=__version__)
    assert caught.value.hint
    assert list(work.rglob(".sandboxer*")) == []


def test_another_sandboxer_inside_is_not_believed(work: Path) -> None:
    box, ctx = Box(), context(work)
    handle, ready = box.establish(ctx)
    with pytest.raises(BackendError, match="answered"):
        selfcheck.run(box, handle, ready, ctx, version="99.0.0")
