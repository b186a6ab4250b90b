"""What an engine shows, parsed and judged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandboxer.errors import BackendError
from sandboxer.extensions.compose_ssh.engine import (
    Container,
    StackFailed,
    StackPending,
    StackReady,
    parse_containers,
    parse_instant,
    published_services,
    readiness,
    unchecked,
)

ANY = "0.0.0.0"  # noqa: S104 - what an engine shows, nothing is bound
SICK = StackPending(0.4, "the health check of service 'web' says unhealthy")
NOW = 1_800_000_000.0


def again(times: int) -> StackPending:
    return StackPending(0.5, f"service 'web' has ended {times} times, and starts again")


def shown(
    *,
    service: str = "web",
    status: str = "running",
    code: int = 0,
    since: float = 10,
    restarts: int = 0,
    health: str | None = None,
    podman: bool = False,
    error: str = "",
    ports: dict[str, Any] | None = None,
    restart: str = "no",
    most: int = 0,
) -> dict[str, Any]:
    """One item of `inspect`."""
    from datetime import UTC, datetime

    started = datetime.fromtimestamp(NOW - since, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"
    state: dict[str, Any] = {"Status": status, "ExitCode": code, "StartedAt": started, "Error": error}
    config: dict[str, Any] = {"Labels": {"com.docker.compose.service": service}, "WorkingDir": "/w"}
    if health:
        state["Health"] = {"Status": health, "Log": [{"Output": "no luck\n"}]}
        config["Healthcheck"] = {"Test": ["CMD", "x"], "Interval": 5_000_000_000, "Retries": 2}
    item = {"Id": "f" * 64, "Name": f"/sbx-{service}-1", "State": state, "Config": config, "RestartCount": restarts}
    item["HostConfig"] = {"RestartPolicy": {"Name": restart, "MaximumRetryCount": most}}
    item |= {"NetworkSettings": {"Ports": ports or {}}}
    return {**item, "ConmonPidFile": "/x"} if podman else item


def containers(*items: dict[str, Any]) -> list[Container]:
    return parse_containers(f"{NOW}\n" + json.dumps(items))


@pytest.mark.parametrize(
    "output", ["", "1.5\n", "now\n[]", "1.5\n[{", "1.5\n{}x", '1.5\n[{"State": 3}]', "1.5\nnull", "[]"]
)
def test_an_answer_that_makes_no_sense_is_never_empty(output: str) -> None:
    with pytest.raises(BackendError) as caught:
        parse_containers(output)
    assert caught.value.outcome == "unknown"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-21T03:47:33.349175077Z", 1795232853.349175),
        ("2026-11-21T04:47:33+01:00", 1795232853.0),
        ("2026-11-21 03:47:33.5 +0000 UTC", 1795232853.5),
        ("0001-01-01T00:00:00Z", 0.0),
        ("", 0.0),
    ],
)
def test_time_stamps_of_both_engines(text: str, seconds: float) -> None:
    assert parse_instant(text) == pytest.approx(seconds, abs=1e-5)


def test_a_clock_without_fractions_is_fine() -> None:
    assert parse_containers(f"{int(NOW)}.N\n" + json.dumps([shown(since=3)]))[0].age == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize(
    ("item", "verdict"),
    [
        (shown(), StackReady()),
        (shown(since=0.5), StackPending(1.5, "service 'web' has just started")),
        (shown(status="exited", code=0), StackReady()),
        (shown(status="exited", code=3), "ended with exit code 3"),
        (shown(status="restarting", code=1, restarts=4), again(4)),
        (shown(since=0.5, restarts=3), again(3)),
        (shown(since=9, restarts=30), StackReady()),
        (shown(status="exited", code=3, restart="always"), again(1)),
        (shown(status="exited", code=0, restart="always"), again(1)),
        (shown(status="stopped", code=3, restart="unless-stopped", restarts=2), again(2)),
        (shown(status="exited", code=3, restart="on-failure", restarts=9), again(9)),
        (shown(status="exited", code=0, restart="on-failure"), StackReady()),
        (shown(status="exited", code=3, restart="on-failure", restarts=1, most=2), again(1)),
        (shown(status="exited", code=3, restart="on-failure", restarts=2, most=2), "ended with exit code 3"),
        (shown(health="healthy"), StackReady()),
        (shown(health="starting"), StackPending(0.4, "the health check of service 'web' says starting")),
        (shown(health="unhealthy"), "is unhealthy"),
        (shown(health="unhealthy", podman=True, since=9), SICK),
        (shown(health="unhealthy", podman=True, since=11), "is unhealthy"),
        (shown(status="created", error="no port"), "was never started: no port"),
        (shown(status="created"), StackPending(0.5, "service 'web' is created")),
        (shown(status="paused"), StackPending(0.5, "service 'web' is paused")),
    ],
)  # fmt: skip
def test_one_container_is_judged(item: dict[str, Any], verdict: object) -> None:
    got = readiness(containers(item), {"web": 1}, settle=2, looked_for=0)
    if isinstance(verdict, str):
        assert isinstance(got, StackFailed)
        assert verdict in got.reason
    elif isinstance(verdict, StackPending):
        assert isinstance(got, StackPending)
        assert got.what == verdict.what
        assert got.seconds == pytest.approx(verdict.seconds, abs=0.01)
    else:
        assert got == verdict


def test_a_service_without_its_containers_is_waited_for_shortly_and_then_broken() -> None:
    assert isinstance(readiness([], {"web": 1}, settle=2, looked_for=0), StackPending)
    assert isinstance(readiness([], {"web": 1}, settle=2, looked_for=2), StackFailed)
    assert isinstance(readiness(containers(shown()), {"web": 2}, settle=2, looked_for=2), StackFailed)
    assert isinstance(readiness(containers(shown(status="created")), {"web": 1}, settle=2, looked_for=2), StackFailed)


def test_only_podmans_checks_are_run_by_us() -> None:
    items = [shown(health="starting", podman=True), shown(health="starting"), shown(health="healthy", podman=True)]
    assert [c.podman for c in unchecked(containers(*items))] == [True]


def test_published_ports_are_told_once_and_by_a_reachable_address() -> None:
    ports = {
        "80/tcp": [{"HostIp": ANY, "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
        "90/tcp": None,
        "91/tcp": [{"HostIp": "", "HostPort": "9191"}, {"HostIp": "2001:db8::1", "HostPort": "9192"}],
    }
    got = [(s.container_port, s.host, s.port, s.url) for s in published_services(containers(shown(ports=ports)))]
    assert got == [
        (53, "127.0.0.1", 5353, "udp://127.0.0.1:5353"),
        (80, "127.0.0.1", 8080, "http://127.0.0.1:8080"),
        (91, "127.0.0.1", 9191, "http://127.0.0.1:9191"),
        (91, "2001:db8::1", 9192, "http://[2001:db8::1]:9192"),
    ]
