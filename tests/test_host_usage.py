"""What sandboxes use of a host, from the script's answer and on this machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sandboxer.hosts.factory import open_host
from sandboxer.models import HostSettings
from sandboxer.telemetry.network_pool import DOCKER_DEFAULT, NetworkPool, pools_in
from sandboxer.telemetry.processes import SandboxUsage, sandbox_usage, usage_in
from sandboxer.timing import Deadline


def stat(pid: int, name: str = "sh", *, parent: int = 1, user: int = 0, pages: int = 0) -> str:
    """What grep says of a process, with a name that may hold ends of lines."""
    rest = ["S", str(parent), *["0"] * 9, str(user), *["0"] * 7, "77", "0", str(pages), "0"]
    text = f"{pid} ({name}) {' '.join(rest)}"
    return "\n".join(f"/proc/{pid}/stat:{line}" for line in text.split("\n"))


def answer(first: list[str], last: list[str], namespaces: dict[int, int], *, own: int = 1) -> str:
    """An answer of the script with a second between the looks, 100 ticks and pages of 4096 bytes."""
    links = [f"lrwxrwxrwx 1 root root 0 Nov 1 00:00 /proc/{pid}/ns/pid -> pid:[{ns}]" for pid, ns in namespaces.items()]
    lines = ["@units", "100", "4096", "@own", f"pid:[{own}]", "@namespaces", *links]
    lines += ["@uptimefirst", "10.00 1", "@statfirst", *first, "@uptimelast", "11.00 1", "@statlast", *last, "@end"]
    return "\n".join(lines)


def test_a_process_belongs_to_the_sandbox_in_whose_namespace_it_is() -> None:
    first = [stat(1), stat(20, user=100, pages=1), stat(21, parent=9, user=50, pages=2), stat(30, user=7)]
    last = [stat(1), stat(20, user=120, pages=1), stat(21, parent=9, user=80, pages=2), stat(30, user=9, pages=5)]
    found = usage_in(answer(first, last, {1: 1, 20: 2, 21: 2, 30: 3}), {"a": [20], "b": [30], "c": [99], "d": []})
    assert found == {
        "a": SandboxUsage(processes=2, cpu_s=2.0, cpu_busy=0.5, memory_bytes=3 * 4096),
        "b": SandboxUsage(processes=1, cpu_s=0.09, cpu_busy=0.02, memory_bytes=5 * 4096),
        "c": None,
        "d": None,
    }


def test_where_namespaces_may_not_be_seen_it_is_what_is_below_the_first_process() -> None:
    looks = [stat(20), stat(21, parent=20, user=100), stat(22, parent=21), stat(30)]
    found = usage_in(answer(looks, looks, {}), {"a": [20]})["a"]
    assert found is not None
    assert (found.processes, found.cpu_s) == (3, 1.0)


def test_a_container_with_the_hosts_processes_is_not_taken_for_the_host() -> None:
    looks = [stat(1, parent=0), stat(20), stat(21, parent=20), stat(30)]
    found = usage_in(answer(looks, looks, {1: 1, 20: 1, 21: 1, 30: 1}), {"a": [20]})["a"]
    assert found is not None
    assert found.processes == 2


def test_a_name_cannot_pass_for_another_process() -> None:
    forged = "x\n30 (y) S 1 0 0 0 0 0 0 0 0 0 99999 0 0 0 0 0 0 0 77 0 9999 0\n/proc/30/stat:30 (z) S 1"
    looks = [stat(20, forged, user=5, pages=1), stat(30, ") S 9 9 (", user=3)]
    found = usage_in(answer(looks, looks, {20: 2, 30: 3}), {"a": [20], "b": [30]})
    assert [one and one.cpu_s for one in found.values()] == [0.05, 0.03]


@pytest.mark.parametrize("text", ["", "@units\n100\n4096\n@end", "@statlast\n/proc/x/stat:1 (a) S\n@end", "\x00@\n"])
def test_any_other_answer_is_nothing_that_can_be_seen(text: str) -> None:
    assert usage_in(text, {"a": [1]}) == {"a": None}


def test_this_machine_tells_what_a_process_of_ours_uses() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        host = open_host("local", HostSettings())
        found = sandbox_usage(host, {"a": [busy.pid], "b": [os.getpid()], "c": []}, Deadline(60))
    finally:
        busy.kill()
        busy.wait()
    assert found["a"] is not None
    assert found["b"] is not None
    assert found["c"] is None
    assert found["a"].memory_bytes > 1024 * 1024
    # ours is above the other, and both are in the host's own namespace
    assert found["b"].processes > found["a"].processes


def test_the_pools_of_engines_are_what_their_settings_give() -> None:
    own = '[{"Base":"10.0.0.0/16","Size":24},{"Base":"fd00::/64","Size":80}]'
    text = "@docker\nbridge\nbridge\nhost\nnull\n@podman\nbridge\n@dockerpools\n"
    podman = NetworkPool(engine="podman", networks=1, most=None)
    assert pools_in(text + own) == [NetworkPool(engine="docker", networks=2, most=256), podman]
    assert pools_in(text + "null") == [NetworkPool(engine="docker", networks=2, most=DOCKER_DEFAULT), podman]
    assert pools_in(text + "[{}]") == [NetworkPool(engine="docker", networks=2, most=None), podman]
    assert pools_in("") == []
