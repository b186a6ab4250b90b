"""The file that is sent means the same to docker compose v2, docker-compose v1 and podman-compose."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandboxer.errors import Invalid, SandboxerError
from sandboxer.extensions.compose_ssh.loader import DirectoryReader, dump, load
from tests.extensions.compose.loader.generated import Trees
from tests.extensions.compose.loader.repositories import (
    PROJECT,
    answer,
    comparable,
    compose,
    loaded,
    lowered,
    unescaped,
    written,
)
from tests.sizes import scaled

FULL = """
services:
  web:
    image: nginx
    ports: ["8080:80", "127.0.0.1:9000-9002:9000-9002/udp", 80, "8000-8005:81", "[::1]:5:5"]
    volumes: [".:/src:ro", "data:/data", "d:/d", "/anon", "./x:/z:z", {type: bind, source: q, target: /q},
              {type: tmpfs, target: /t, tmpfs: {size: 10m}}, "data:/ro:ro"]
    environment: [A=1, C=, 'D=$$x $${A} $$$$', "E=é\\u2028"]
    depends_on: {db: {condition: service_healthy}, w: {condition: service_completed_successfully}}
    healthcheck: {test: exit 0, interval: 1m30s, timeout: 5s, start_period: 1h, retries: 3}
    ulimits: {nofile: 5, nproc: {soft: 1, hard: 2}}
    mem_limit: 1g
    memswap_limit: -1
    mem_swappiness: 3
    shm_size: 64m
    build: {context: ., args: [A=1], labels: [a=b], shm_size: 1m, extra_hosts: [a:1.1.1.1], target: x, cache_from: [a]}
    command: echo "a b" $$x
    entrypoint: []
    labels: [a=b]
    secrets: [s]
    configs: [{source: c, target: /c, mode: 0440}]
    networks: {n: {aliases: [q], priority: 3}, default: }
    deploy: {replicas: 1, resources: {limits: {cpus: '0.5', memory: 1G}}}
    cpus: 0.5
    dns: 1.1.1.1
    tmpfs: /run
    extra_hosts: ["a:1.2.3.4", "b=::1"]
    sysctls: {a: 1}
    blkio_config: {weight: 300, device_read_bps: [{path: /dev/sda, rate: '12mb'}]}
    stop_grace_period: 1m
    logging: {options: {a: 1, max-size: 10m}}
    pull_policy: if_not_present
    platform: linux/amd64
    init: true
    scale: 1
    devices: [/dev/a]
    storage_opt: {size: 1G}
    group_add: [1]
    expose: [80]
    links: ["db:x"]
    oom_score_adj: 5
    cap_add: [A]
    device_cgroup_rules: ["c 1:3 r"]
    stop_signal: SIGINT
    hostname: a
    cpu_shares: 5
  db: {image: pg, restart: always, healthcheck: {disable: true}}
  w: {image: w, network_mode: "service:db", read_only: true, user: a, working_dir: /a, privileged: false}
volumes: {data: {labels: {a: b}}, d: }
networks: {n: {ipam: {config: [{subnet: 1.2.3.0/24}]}}}
secrets: {s: {file: ./s.txt}}
configs: {c: {file: ./abc}}
"""
"""Every key that all three know, in its short forms."""


def _sent(folder: Path, text: str = FULL) -> Path:
    """The file that is sent for a repository with this compose.yaml; v1 wants to see its directories."""
    with DirectoryReader(written({"compose.yaml": text}, folder)) as reader:
        project = load(reader, files=None, environment={}, project_name=PROJECT, directory=str(folder))
    target = folder / "sent.yaml"
    target.write_bytes(dump(project.document))
    return target


def _config(words: list[str], sent: Path, **variables: str) -> Any:
    done = subprocess.run(
        [*words, "-p", PROJECT, "-f", str(sent), "config"],
        cwd=sent.parent,
        env={"HOME": str(sent.parent), "PATH": "/usr/bin:/bin:/usr/local/bin", **variables},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return yaml.safe_load(done.stdout)


@pytest.mark.parametrize("kind", ["docker compose", "docker-compose", "podman-compose"])
def test_each_program_takes_the_file_with_every_key(kind: str, tmp_path: Path) -> None:
    found = _config(compose(kind), _sent(tmp_path))
    assert set(found["services"]) == {"web", "db", "w"}


@pytest.mark.parametrize("kind", ["docker compose", "docker-compose", "podman-compose"])
def test_no_program_finds_a_variable_in_it(kind: str, tmp_path: Path) -> None:
    text = "services: {w: {image: 'a', command: ['$$A', '$${A}', '$$$$A', 'x$$'], labels: {l: '$${A:-d}', 'k$A': v},"
    text += " environment: {'e$A': v}}}"
    found = _config(compose(kind), _sent(tmp_path, text), A="leaked")
    assert "leaked" not in json.dumps(found)
    wanted = ["$A", "${A}", "$$A", "x$"]
    command = found["services"]["w"]["command"]
    # docker compose escapes what it prints; podman-compose prints what it will use
    assert command in (wanted, [word.replace("$", "$$") for word in wanted])


@pytest.mark.parametrize("kind", ["docker compose", "docker-compose", "podman-compose"])
def test_each_program_reads_every_character_as_it_was_written(kind: str, tmp_path: Path) -> None:
    """JSON writes a character beyond U+FFFF as a pair, which YAML does not take."""
    said = "\U0001f600 \U0010ffff \u00e9 \x7f \u0085 \u2028 \\ud83d\\ude00 \\\U0001f600 <<: ~ 0o17 1:30"
    text = json.dumps({"services": {"w": {"image": "a", "command": [said], "environment": {"A": said}}}})
    text = text.replace("\\ud83d\\ude00", "\U0001f600").replace("\\udbff\\udfff", "\U0010ffff")
    service = _config(compose(kind), _sent(tmp_path, text))["services"]["w"]
    assert service["command"] == [said]
    assert service["environment"] in ({"A": said}, [f"A={said}"])


@pytest.mark.parametrize(
    "text",
    [
        "services: {w: {image: a, logging: {options: {'$A': 1}}}}",
        "services: {w: {image: a, environment: {'$A=': 1}}}",
        "services: {'$A': {image: a}}",
        "services: {w: {image: a, x-a: {'${A}': 1}}}",
    ],
)
def test_a_name_that_podman_compose_would_take_for_a_variable_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"has a `\$` in its name"):
        dump(loaded(text).document)


def test_docker_compose_understands_the_file_as_it_understands_the_repository(tmp_path: Path) -> None:
    words = compose("docker compose")
    compared = 0
    for seed in range(scaled(40, soak=400)):
        folder = written(Trees(seed).tree(), tmp_path / str(seed))
        try:
            with DirectoryReader(folder) as reader:
                project = load(reader, files=None, environment={}, project_name=PROJECT, directory=str(folder))
        except SandboxerError:
            continue  # what is refused is compared elsewhere
        (folder / "sent.yaml").write_bytes(dump(project.document))
        (folder / ".env").unlink()
        found = comparable(unescaped(lowered(answer(words, folder, files=["sent.yaml"]))))
        wanted = comparable(project.document)
        for body in wanted["services"].values():
            if body.get("pull_policy") == "missing":
                del body["pull_policy"]  # the default
        assert found == wanted, f"seed {seed}"
        compared += 1
    assert compared > scaled(40, soak=400) // 2


def test_the_same_document_is_the_same_bytes() -> None:
    first = dump(loaded("services: {a: {image: a, labels: {x: 1, y: 2}}, b: {image: b}}").document)
    second = dump(loaded("services: {b: {image: b}, a: {labels: {y: 2, x: 1}, image: a}}").document)
    assert first == second
    assert first.isascii()


@pytest.mark.parametrize(
    ("lines", "key", "value"),
    [
        ("ports: ['8080:80']", "ports", ["8080:80/tcp"]),
        ("ports: ['127.0.0.1::80']", "ports", ["127.0.0.1::80/tcp"]),
        ("ports: ['[::1]:1:2/udp']", "ports", ["[::1]:1:2/udp"]),
        ("ports: ['8000-8005:80']", "ports", ["8000-8005:80/tcp"]),
        ("ports: [{target: 80, mode: host}]", "ports", [{"target": 80, "mode": "host", "protocol": "tcp"}]),
        ("volumes: ['/a:/b:ro,z']", "volumes", ["/a:/b:ro,z"]),
        ("volumes: [/anon]", "volumes", ["/anon"]),
        ("volumes: [{type: bind, source: '/a:b', target: /c, bind: {create_host_path: true}}]", "volumes",
         [{"type": "bind", "source": "/a:b", "target": "/c", "bind": {"create_host_path": True}}]),
        ("volumes: [{type: bind, source: /a, target: /c}]", "volumes",
         [{"type": "bind", "source": "/a", "target": "/c"}]),
        ("devices: [/dev/a]", "devices", ["/dev/a:/dev/a:rwm"]),
        ("extra_hosts: [b=::1]", "extra_hosts", ["b:::1"]),
        ("memswap_limit: -1", "memswap_limit", -1),
        ("pull_policy: missing", "pull_policy", None),
        ("command: ", "command", None),
        ("entrypoint: []", "entrypoint", []),
        ("command: ['$$A']", "command", ["$$A"]),
    ],
)  # fmt: skip
def test_a_key_is_written_in_the_form_that_all_take(lines: str, key: str, value: object) -> None:
    document = json.loads(dump(loaded(f"services:\n  web:\n    image: a\n    {lines}\n").document))
    assert document["services"]["web"].get(key) == value
    assert "name" not in document
