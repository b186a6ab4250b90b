"""What programs say when they fail, recognised. The texts are as the programs of the test bed wrote them."""

from __future__ import annotations

import pytest

from sandboxer.errors import BackendError, Denied, Invalid, SandboxerError, Unavailable
from sandboxer.extensions.compose_ssh.errors import missing_program, says_absent, tail, translate
from sandboxer.hosts.base import Result


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("Error: could not find free subnet from subnet pools", BackendError, "address pools"),
        ("could not find an available, non-overlapping IPv4 address pool among the", BackendError, "address pools"),
        ("daemon: all predefined address pools have been fully subnetted", BackendError, "address pools"),
        ("endpoint x: Bind for 10.0.0.1:80 failed: port is already allocated", BackendError, "already in use"),
        ("listen tcp4 127.0.0.1:18099: bind: address already in use", BackendError, "already in use"),
        ('Error: short-name "nginx" did not resolve to an alias', BackendError, "short name"),
        ('Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry: no such host', BackendError, "pulled"),
        ("pull access denied for x, repository does not exist", BackendError, "pulled"),
        ('Conflict. The container name "/fixed" is already in use by container', BackendError, "container_name"),
        ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", Unavailable, "daemon"),
        ("permission denied while trying to connect to the Docker daemon socket at unix:///x", Denied, "socket"),
        ("validating -: services.a Additional property bogus is not allowed", Invalid, "bogus"),
        ("The Compose file is invalid because:\nUnsupported config option for a: 'bogus'", Invalid, "bogus"),
        ("ValueError: required variable TAG is missing a value: tag is needed", Invalid, "TAG"),
        ("The command '/bin/sh -c false' returned a non-zero code: 1", BackendError, "built"),
        ("OSError: Dockerfile not found in /w/sbx-x/../outside", BackendError, "built"),
        ("build path /w/outside either does not exist, is not accessible, or is", BackendError, "built"),
        ("ValueError: Env file at /w/sbx-x/nope.env does not exist", Invalid, "nope.env"),
        ("Invalid 'extends' configuration for a: you need to specify a 'file'", Invalid, "extends"),
        ("network n declared as external, but could not be found", BackendError, "not on the host: network n"),
        ("Error: External network [n] does not exist. Create it first", BackendError, "not on the host"),
        ("write /x: no space left on device", BackendError, "disk is full"),
        ("something else entirely", BackendError, "something else entirely"),
        ("", BackendError, "exit code 9"),
    ],
)  # fmt: skip
def test_a_failure_is_recognised(said: str, kind: type[SandboxerError], words: str) -> None:
    error = translate(Result(9, b"", said.encode()), doing="up", engine="docker")
    assert type(error) is kind
    assert words in error.message
    assert error.hint
    assert "{" not in error.hint


def test_noise_and_colours_are_left_out() -> None:
    noise = 'raise OSError(f"no")\nlevel=warning\ntime="x" level=warning msg="y"\n\x1b[0mthe real thing\n\n'
    assert tail(noise) == "the real thing"


@pytest.mark.parametrize(
    ("others", "hint"),
    [
        (["podman-compose"], "set `compose: podman-compose` for the host in config.yaml, or SANDBOXER_COMPOSE_CMD="),
        ([], "install docker"),
    ],
)  # fmt: skip
def test_a_missing_program_says_what_to_type(others: list[str], hint: str) -> None:
    assert hint in missing_program("docker compose", others).hint


@pytest.mark.parametrize(
    "said",
    [
        "Error response from daemon: Could not find the file /nope in container t1",
        'Error: "/nope" could not be found on container t1: no such file or directory',
    ],
)
def test_an_absent_path_is_told_from_an_engine_that_fails(said: str) -> None:
    assert says_absent(Result(1, b"", said.encode()))
    assert not says_absent(Result(1, b"", b"Cannot connect to the Docker daemon"))


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("ERROR: failed to build: exit code 1", "caller"),
        ("no space left on device", "backend"),
        ("port is already allocated", "backend"),
        ("Cannot connect to the Docker daemon", "backend"),
        ("services.web Additional property x is not allowed", "caller"),
    ],
)
def test_another_host_is_tried_only_for_what_it_could_do_better(said: str, fault: str) -> None:
    error = translate(Result(1, b"", said.encode()), doing="up", engine="docker")
    assert error.fault == fault
