"""What a host says of itself, and that nothing it says can break the report."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxer import telemetry
from sandboxer.hosts.local import LocalHost
from sandboxer.models import HostSettings
from sandboxer.timing import Deadline

ANSWER = """\
Welcome to the machine, dear user!
@files
/proc/loadavg:0.50 1.25 2.00 3/456 789
/proc/uptime:12345.67 23456.78
/proc/meminfo:MemTotal:       16384 kB
/proc/meminfo:MemFree:         1024 kB
/proc/meminfo:MemAvailable:    8192 kB
/proc/meminfo:SwapTotal:       2048 kB
/proc/meminfo:SwapFree:           0 kB
/etc/os-release:PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
/etc/os-release:NAME="Debian GNU/Linux"
/sys/devices/system/cpu/online:0-3,8
@cpu
model name\t: Some Processor @ 3.00GHz
@uname
Linux
coulombcore
6.1.0-26-amd64
x86_64
@disk
Filesystem     1024-blocks     Used Available Capacity Mounted on
/dev/my disk      1000000   600000    400000      60% /srv
@programs
docker\t/usr/bin/docker
docker-compose\t
podman\t/usr/bin/podman
podman-compose\t/usr/local/bin/podman-compose
bwrap\t/usr/bin/bwrap
rsync\t
python3\t/usr/bin/python3
docker compose\t/usr/libexec/docker/cli-plugins/docker-compose
@versions
docker\tDocker version 28.2.2, build e6534b4
podman\tpodman version 4.3.1
podman-compose\t1.0.3.egg-info
bwrap\tbubblewrap 0.8.0
python3\tPython 3.11.2
docker compose\tv2.26.1
@end
"""


def local(work_dir: Path, **environ: str) -> LocalHost:
    return LocalHost("local", HostSettings(work_dir=str(work_dir)), environ={**os.environ, **environ})


def test_the_answer_of_a_host_becomes_numbers_with_units() -> None:
    report = telemetry.parse(ANSWER)
    assert report == {
        "hostname": "coulombcore",
        "system": "Linux",
        "kernel": "6.1.0-26-amd64",
        "architecture": "x86_64",
        "os": "Debian GNU/Linux 12 (bookworm)",
        "cpu_count": 5,
        "cpu_model": "Some Processor @ 3.00GHz",
        "load_1m": 0.5,
        "load_5m": 1.25,
        "load_15m": 2.0,
        "memory_total_bytes": 16384 * 1024,
        "memory_available_bytes": 8192 * 1024,
        "swap_total_bytes": 2048 * 1024,
        "swap_free_bytes": 0,
        "disk_mount": "/srv",
        "disk_total_bytes": 1000000 * 1024,
        "disk_free_bytes": 400000 * 1024,
        "uptime_seconds": 12345.67,
        "engines": [
            {"name": "docker", "path": "/usr/bin/docker", "version": "28.2.2"},
            {"name": "docker compose", "path": "/usr/libexec/docker/cli-plugins/docker-compose", "version": "2.26.1"},
            {"name": "podman", "path": "/usr/bin/podman", "version": "4.3.1"},
            {"name": "podman-compose", "path": "/usr/local/bin/podman-compose", "version": "1.0.3"},
        ],
        "tools": {
            "bwrap": {"name": "bwrap", "path": "/usr/bin/bwrap", "version": "0.8.0"},
            "rsync": None,
            "python3": {"name": "python3", "path": "/usr/bin/python3", "version": "3.11.2"},
        },
    }


def test_this_machine_tells_what_the_kernel_tells(tmp_path: Path) -> None:
    report = telemetry.host_telemetry(local(tmp_path), Deadline(20))
    info = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    disk = shutil.disk_usage(tmp_path)
    assert report["memory_total_bytes"] == int(info["MemTotal"].split()[0]) * 1024
    assert report["cpu_count"] == os.cpu_count()
    assert report["kernel"] == os.uname().release
    assert report["hostname"] == os.uname().nodename
    assert report["disk_total_bytes"] == pytest.approx(disk.total, rel=0.01)
    assert report["load_1m"] >= 0
    assert abs(report["uptime_seconds"] - time.clock_gettime(time.CLOCK_BOOTTIME)) < 30
    assert report["tools"]["python3"]["path"]


def test_a_work_directory_that_is_not_there_yet_has_the_disk_of_the_one_above(tmp_path: Path) -> None:
    report = telemetry.host_telemetry(local(tmp_path / "not" / "yet"), Deadline(20))
    assert report["disk_total_bytes"] == pytest.approx(shutil.disk_usage(tmp_path).total, rel=0.01)


def program(directory: Path, name: str, text: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_engines_are_found_without_being_run_and_tell_their_versions_only_on_request(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    program(tmp_path / "bin", "podman", f"#!/bin/sh\ntouch {trace}\necho podman version 9.8.7\n")
    host = local(tmp_path, PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    quick = {e["name"]: e for e in telemetry.host_telemetry(host, Deadline(20))["engines"]}
    assert quick["podman"] == {"name": "podman", "path": f"{tmp_path}/bin/podman", "version": None}
    assert not trace.exists()
    full = {e["name"]: e for e in telemetry.host_telemetry(host, Deadline(20), engines=True)["engines"]}
    assert full["podman"]["version"] == "9.8.7"
    assert trace.exists()


def test_a_python_front_end_is_never_run_for_its_version(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    program(
        tmp_path / "venv/bin", "podman-compose", f"#!{tmp_path}/venv/bin/python3\nimport os\nopen('{trace}', 'w')\n"
    )
    (tmp_path / "venv/lib/python3.11/site-packages/podman_compose-1.6.0.dist-info").mkdir(parents=True)
    host = local(tmp_path, PATH=f"{tmp_path}/venv/bin:/usr/bin:/bin")
    engines = {e["name"]: e for e in telemetry.host_telemetry(host, Deadline(20), engines=True)["engines"]}
    assert engines["podman-compose"]["version"] == "1.6.0"
    assert not trace.exists()


def test_an_engine_that_hangs_costs_two_seconds_and_its_own_version_alone(tmp_path: Path) -> None:
    program(tmp_path / "bin", "docker", "#!/bin/sh\nexec sleep 60\n")
    program(tmp_path / "bin", "podman", "#!/bin/sh\necho podman version 1.2.3\n")
    host = local(tmp_path, PATH=f"{tmp_path}/bin:/usr/bin:/bin")
    started = time.monotonic()
    engines = {e["name"]: e for e in telemetry.host_telemetry(host, Deadline(30), engines=True)["engines"]}
    assert time.monotonic() - started < 10
    assert engines["docker"]["version"] is None
    assert engines["podman"]["version"] == "1.2.3"


@pytest.mark.skipif(shutil.which("busybox") is None, reason="no busybox here")
def test_a_host_of_busybox_answers_too(tmp_path: Path) -> None:
    words = ["busybox", "sh", "-c", telemetry.script(), "telemetry", str(tmp_path), "none"]
    done = subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, check=True)
    report = telemetry.parse(done.stdout.decode())
    assert report["memory_total_bytes"] > 0
    assert report["uptime_seconds"] > 0


def test_no_answer_steers_a_terminal() -> None:
    report = telemetry.parse("@uname\nLinux\n\x1b[2J\x1b]0;gotcha\x07host\n1\n2\n")
    assert report["hostname"] == "[2J]0;gotchahost"


def check_shape(report: dict[str, object]) -> None:
    assert report.keys() == telemetry.parse("").keys()
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_an_empty_answer_has_every_key() -> None:
    report = telemetry.parse("")
    assert report["engines"] == []
    assert all(value is None for key, value in report.items() if key not in ("engines", "tools"))


@given(st.text())
def test_any_text_is_a_report(text: str) -> None:
    check_shape(telemetry.parse(text))


LINES = st.sampled_from(ANSWER.split("\n"))
DAMAGED = st.builds(lambda line, cut, new: line[:cut] + new + line[cut:], LINES, st.integers(0, 60), st.text())
STRANGE = st.text(alphabet="@:\t =-,.0123456789kB%/\u00b2\u00b9\u0663", max_size=40)


@settings(max_examples=300, deadline=None)
@given(st.lists(LINES | DAMAGED | STRANGE, max_size=60))
def test_a_damaged_answer_is_a_report(lines: list[str]) -> None:
    check_shape(telemetry.parse("\n".join(lines)))
