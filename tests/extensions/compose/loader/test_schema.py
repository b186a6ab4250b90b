"""What each key of a compose file comes to, and what is refused with its file and line."""

from __future__ import annotations

from typing import Any

import pytest

from sandboxer.errors import Denied, Invalid
from tests.extensions.compose.loader.repositories import DIRECTORY, Tree, loaded, service

INGRESS = {"mode": "ingress", "protocol": "tcp"}
BIND = {"create_host_path": True}


@pytest.mark.parametrize(
    ("lines", "key", "value"),
    [
        ("ports: ['8080:80']", "ports", [{**INGRESS, "target": 80, "published": "8080"}]),
        ("ports: [80]", "ports", [{**INGRESS, "target": 80}]),
        ("ports: ['127.0.0.1:1-2:3-4/udp']", "ports", [
            {"mode": "ingress", "host_ip": "127.0.0.1", "target": 3, "published": "1", "protocol": "udp"},
            {"mode": "ingress", "host_ip": "127.0.0.1", "target": 4, "published": "2", "protocol": "udp"}]),
        ("ports: ['[::1]:1:2']", "ports", [{**INGRESS, "host_ip": "::1", "target": 2, "published": "1"}]),
        ("ports: ['8000-8005:80']", "ports", [{**INGRESS, "target": 80, "published": "8000-8005"}]),
        ("ports: [{target: '80', published: 90}]", "ports", [{**INGRESS, "target": 80, "published": "90"}]),
        ("ports: ['80:80', '80:80']", "ports", [{**INGRESS, "target": 80, "published": "80"}]),
        ("volumes: ['./a:/b:ro,z']", "volumes", [{
            "type": "bind", "source": f"{DIRECTORY}/a", "target": "/b", "read_only": True,
            "bind": {"selinux": "z", "create_host_path": True}}]),
        ("volumes: ['../up:/b']", "volumes", [{"type": "bind", "source": "/srv/up", "target": "/b", "bind": BIND}]),
        ("volumes: ['/a//../c:/b/']", "volumes", [{"type": "bind", "source": "/c", "target": "/b", "bind": BIND}]),
        ("volumes: ['~/a:/b']", "volumes", [{"type": "bind", "source": "~/a", "target": "/b", "bind": BIND}]),
        ("volumes: [/anon]", "volumes", [{"type": "volume", "target": "/anon"}]),
        ("volumes: [{type: bind, source: a, target: /b}]", "volumes",
         [{"type": "bind", "source": f"{DIRECTORY}/a", "target": "/b"}]),
        ("volumes: [{type: tmpfs, target: /b, tmpfs: {size: 1g, mode: 01777}}]", "volumes",
         [{"type": "tmpfs", "target": "/b", "tmpfs": {"size": "1073741824", "mode": 1023}}]),
        ("volumes: ['/a:/b', '/c:/b']", "volumes",
         [{"type": "bind", "source": "/c", "target": "/b", "bind": BIND}]),
        ("environment: [A=1, B=x=y, 'C=']", "environment", {"A": "1", "B": "x=y", "C": ""}),
        ("environment: {A: 1.50, B: yes, C: true}", "environment", {"A": "1.5", "B": "yes", "C": "true"}),
        ("environment: [GIVEN, MISSING]", "environment", {"GIVEN": "here"}),
        ("environment: [MISSING]", "environment", None),
        ("labels: [a, b=c]", "labels", {"a": "", "b": "c"}),
        ("command: echo 'a b'", "command", ["echo", "a b"]),
        ("command: []", "command", []),
        ("command: ", "command", None),
        ("healthcheck: {test: exit 0, interval: 90s, retries: '3'}", "healthcheck",
         {"test": ["CMD-SHELL", "exit 0"], "interval": "1m30s", "retries": 3}),
        ("build: .", "build", {"context": DIRECTORY, "dockerfile": "Dockerfile"}),
        ("build: {context: app, args: [A=1, GIVEN, MISSING]}", "build",
         {"context": f"{DIRECTORY}/app", "dockerfile": "Dockerfile", "args": {"A": "1", "GIVEN": "here"}}),
        ("build: {dockerfile_inline: FROM x}", "build", {"context": DIRECTORY, "dockerfile_inline": "FROM x"}),
        ("build: https://example.org/a.git", "build",
         {"context": "https://example.org/a.git", "dockerfile": "Dockerfile"}),
        ("build: {context: ., additional_contexts: [a=docker-image://x, b=../c]}", "build",
         {"context": DIRECTORY, "dockerfile": "Dockerfile",
          "additional_contexts": {"a": "docker-image://x", "b": "/srv/c"}}),
        ("build: {context: ., ssh: [default, a=./key]}", "build",
         {"context": DIRECTORY, "dockerfile": "Dockerfile", "ssh": ["default", f"a={DIRECTORY}/key"]}),
        ("ulimits: {a: '5', b: {soft: 1, hard: '2'}}", "ulimits", {"a": 5, "b": {"soft": 1, "hard": 2}}),
        ("extra_hosts: ['a:1.1.1.1', 'b=[::1]']", "extra_hosts", ["a=1.1.1.1", "b=::1"]),
        ("devices: ['/dev/a:/dev/b:r']", "devices", [{"source": "/dev/a", "target": "/dev/b", "permissions": "r"}]),
        ("dns: 1.1.1.1", "dns", ["1.1.1.1"]),
        ("tmpfs: /run", "tmpfs", ["/run"]),
        ("expose: [80, '81']", "expose", ["80", "81"]),
        ("mem_limit: 1.5g", "mem_limit", "1610612736"),
        ("memswap_limit: -1", "memswap_limit", "-1"),
        ("privileged: '${GIVEN:+yes}'", "privileged", True),
        ("privileged: off", "privileged", False),
        ("scale: '${NO:-2}'", "scale", 2),
        ("cpus: '0.5'", "cpus", 0.5),
        ("stop_grace_period: 1h", "stop_grace_period", "1h0m0s"),
        ("pull_policy: if_not_present", "pull_policy", "missing"),
        ("hostname: '${NO}'", "hostname", None),
        ("networks: [default]", "networks", {"default": None}),
        ("network_mode: none", "networks", None),
        ("gpus: all", "gpus", [{"count": -1}]),
        ("newer: {key: 1}", "newer", {"key": 1}),
        ("x-mine: {a: 1}", "x-mine", {"a": 1}),
        ("profiles: []", "profiles", None),
    ],
)  # fmt: skip
def test_a_key_of_a_service_has_its_long_form(lines: str, key: str, value: Any) -> None:
    assert service(lines, GIVEN="here").get(key) == value


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ("user: 1000", "services.web.user"),
        ("command: [1]", "services.web.command[0]"),
        ("ports: 80", "services.web.ports"),
        ("ports: ['a:b']", "services.web.ports[0]"),
        ("ports: ['1-3:1-2']", "services.web.ports[0]"),
        ("ports: ['80:80/foo']", "services.web.ports[0]"),
        ("ports: ['1.2.3:80:80']", "services.web.ports[0]"),
        ("ports: ['0.0.0.0:80:80:80']", "services.web.ports[0]"),
        ("ports: [{published: 1}]", "services.web.ports[0]"),
        ("ports: [70000]", "services.web.ports[0]"),
        ("volumes: ['a:b:c:d']", "services.web.volumes[0]"),
        ("volumes: ['']", "services.web.volumes[0]"),
        ("volumes: [{type: bind, target: /a}]", "services.web.volumes[0]"),
        ("volumes: [{target: /a}]", "services.web.volumes[0]"),
        ("volumes: [null]", "services.web.volumes[0]"),
        ("environment: {A: {b: c}}", "services.web.environment.A"),
        ("environment: 1", "services.web.environment"),
        ("healthcheck: {test: [a]}", "services.web.healthcheck.test"),
        ("healthcheck: {interval: 5}", "services.web.healthcheck.interval"),
        ("stop_grace_period: '10'", "services.web.stop_grace_period"),
        ("mem_limit: 1x", "services.web.mem_limit"),
        ("cpus: a", "services.web.cpus"),
        ("scale: '1.5'", "services.web.scale"),
        ("init: 1", "services.web.init"),
        ("depends_on: {b: {condition: x}}", "services.web.depends_on.b.condition"),
        ("depends_on: {b: }", "services.web.depends_on.b"),
        ("build: {context: .\n  , target: }", "services.web.build.target"),
        ("labels: ", "services.web.labels"),
        ("tmpfs: ", "services.web.tmpfs"),
        ("logging: []", "services.web.logging"),
        ("extra_hosts: [a]", "services.web.extra_hosts[0]"),
        ("hostname: '${NO:?say}'", "services.web.hostname"),
        ("hostname: '${'", "services.web.hostname"),
        ("secrets: [{target: x}]", "services.web.secrets[0]"),
        ("command: a 'b", "services.web.command"),
    ],
)
def test_a_value_of_a_wrong_kind_is_told_with_its_path_file_and_line(lines: str, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        service(lines)
    details = caught.value.details or {}
    assert (details["path"], details["file"]) == (path, "compose.yaml")
    assert details["line"] >= 4
    assert f"compose.yaml, line {details['line']}: {path} " in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services: {w: {image: a, image: b}}", "given twice"),
        ("a: 1\na: 2", "line 2: the key 'a' is given twice"),
        ("services: {1: {image: a}}", "not a word"),
        ("services: {[a]: 1}", "not a word"),
        ("services: {w: {image: *a}}", "has no anchor"),
        ("services: {w: &a {image: *a}}", "has no anchor"),
        ("services: {w: !!python/object:os.x {}}", "tag"),
        ("services: {w: {image: a, x-a: !!binary aGk=}}", "tag"),
        ("services: {w: {<<: a}}", "needs a mapping"),
        ("- a", "not a mapping"),
        ("a", "not a mapping"),
        ("", "no `services`"),
        ("services: {}", "no `services`"),
        ("services: []", "must be a mapping"),
        ("services: {w: }", "not a mapping"),
        ("services: {w: {command: a}}", "neither an image nor a build"),
        ("services: {w: {image: a, networks: [n], network_mode: host}}", "both"),
        (
            "services: {w: {image: a, mem_limit: 1g, deploy: {resources: {limits: {memory: 2g}}}}}",
            "mem_limit is not what",
        ),
        ("services: {w: {image: a, cpus: 1, deploy: {resources: {limits: {memory: 2g}}}}}", "cpus is not what"),
        ("services: {w: {image: a, scale: 2, deploy: {replicas: 1}}}", "scale is not what"),
        ("services: {w: {image: a, scale: 2, container_name: x}}", "cannot be the name of 2 containers"),
        ("services: {w: {image: a, networks: [n]}}", "network 'n', which is not there"),
        ("services: {w: {image: a, volumes: ['v:/v']}}", "volume 'v', which is not there"),
        ("services: {w: {image: a, secrets: [s]}}", "secret 's', which is not there"),
        ("services: {w: {image: a, configs: [c]}}", "config 'c', which is not there"),
        ("services: {w: {image: a, build: {secrets: [s]}}}", "secret 's', which is not there"),
        ("services: {w: {image: a, depends_on: [b]}}", "service 'b', which is not there"),
        ("services: {w: {image: a, depends_on: [w]}}", "depends on itself"),
        ("services: {w: {image: a, links: [x]}, x: {image: a, depends_on: [w]}}", "depends on itself"),
        ("services: {w: {extends: {service: x}}}", "'x', which is not there"),
        ("services: {w: {extends: x}, x: {extends: w}}", "extends itself"),
        ("services: {w: {extends: w}}", "extends itself"),
        ("services: {w: {image: a, env_file: gone}}", "gone is not in the repository"),
        ("services: {w: {image: a, x: .inf}}", "infinite"),
        ("include: [gone.yaml]", "gone.yaml is not in the repository"),
        ("services: {w: {image: a}", "did not find expected"),
        ("x: \t- a\n\t- b", "line"),
    ],
)
def test_a_project_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        loaded(text)
    assert said in caught.value.message
    assert "compose.yaml" in caught.value.message or "no `services`" in said or "gone" in said
    assert caught.value.hint


@pytest.mark.parametrize(
    "tree",
    [
        {"compose.yaml": "include: [../x.yaml]"},
        {"compose.yaml": "include: [/etc/x.yaml]"},
        {"compose.yaml": "include: [{path: a.yaml, project_directory: ..}]"},
        {"compose.yaml": "include: [{path: a.yaml, env_file: ../.env}]", "a.yaml": ""},
        {"compose.yaml": "services: {w: {extends: {file: ../x.yaml, service: a}}}"},
        {"compose.yaml": "services: {w: {image: a, env_file: ../x}}"},
        {"compose.yaml": "services: {w: {image: a, env_file: [{path: /etc/x, required: false}]}}"},
        {"compose.yaml": "services: {w: {image: a, label_file: /etc/x}}"},
        {"compose.yaml": "services: {w: {image: a, env_file: ~/x}}"},
        {"compose.yaml": "services: {w: {image: a}}", ".env": "COMPOSE_FILE=../x.yaml"},
    ],
)
def test_a_file_outside_the_repository_is_denied(tree: Tree) -> None:
    with pytest.raises(Denied, match="leads out"):
        loaded(tree)


def test_an_included_address_is_denied_and_called_what_it_is() -> None:
    with pytest.raises(Denied, match=r"^compose\.yaml, line 1: 'https://example\.org/x\.git' is an address"):
        loaded({"compose.yaml": "include: ['https://example.org/x.git']"})


def test_files_of_the_repository_may_be_named_by_their_path_on_the_host() -> None:
    tree = {"compose.yaml": f"include: [{DIRECTORY}/sub/a.yaml]", "sub/a.yaml": "services: {w: {image: a}}"}
    assert loaded(tree).files == ("compose.yaml", "sub/a.yaml")
