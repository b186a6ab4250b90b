"""What a project comes to: the long form of each key, and the rules by which files are put together."""

from __future__ import annotations

from typing import Any

import pytest

from sandboxer.errors import Denied, Invalid, SandboxerError
from sandboxer.extensions.compose_ssh.loader import Origin
from tests.extensions.compose.loader.trees import DIRECTORY, Tree, loaded, service

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


def test_files_of_the_repository_may_be_named_by_their_path_on_the_host() -> None:
    tree = {"compose.yaml": f"include: [{DIRECTORY}/sub/a.yaml]", "sub/a.yaml": "services: {w: {image: a}}"}
    assert loaded(tree).files == ("compose.yaml", "sub/a.yaml")


def _web(*files: str) -> dict[str, Any]:
    names = [f"f{index}.yaml" for index in range(len(files))]
    tree = {
        name: f"services: {{web: {{{body}}}, other: {{image: o}}}}" for name, body in zip(names, files, strict=True)
    }
    return dict(loaded(tree, files=names).document["services"]["web"])


@pytest.mark.parametrize(
    ("first", "second", "key", "value"),
    [
        ("command: a b", "command: [c]", "command", ["c"]),
        ("entrypoint: a", "entrypoint: []", "entrypoint", []),
        ("environment: [A=1, B=1]", "environment: {A: 2, C: 3}", "environment", {"A": "2", "B": "1", "C": "3"}),
        ("environment: {A: 1, B: 1}", "environment: [A]", "environment", {"B": "1"}),
        ("cap_add: [A, B]", "cap_add: [B, C]", "cap_add", ["A", "B", "C"]),
        ("dns: a", "dns: [a, b]", "dns", ["a", "b"]),
        ("tmpfs: /a", "tmpfs: [/a, /b]", "tmpfs", ["/a", "/b"]),
        ("volumes: ['/a:/x', '/b:/y']", "volumes: ['/c:/x']", "volumes", [
            {"type": "bind", "source": "/c", "target": "/x", "bind": BIND},
            {"type": "bind", "source": "/b", "target": "/y", "bind": BIND}]),
        ("ports: ['80:80']", "ports: ['81:80', '80:80']", "ports", [
            {**INGRESS, "target": 80, "published": "80"}, {**INGRESS, "target": 80, "published": "81"}]),
        ("ports: ['80:80']", "ports: !reset []", "ports", None),
        ("ports: ['80:80']", "ports: !override ['81:81']", "ports", [{**INGRESS, "target": 81, "published": "81"}]),
        ("environment: {A: 1, B: 2}", "environment: {A: !reset null}", "environment", {"B": "2"}),
        ("logging: {driver: a, options: {x: 1}}", "logging: {driver: b, options: {y: 1}}", "logging",
         {"driver": "b", "options": {"y": "1"}}),
        ("logging: {driver: a, options: {x: 1}}", "logging: {options: {y: 1}}", "logging",
         {"driver": "a", "options": {"x": "1", "y": "1"}}),
        ("healthcheck: {test: [CMD, a], interval: 1s}", "healthcheck: {test: b}", "healthcheck",
         {"test": ["CMD-SHELL", "b"], "interval": "1s"}),
        ("build: {context: a, args: {A: 1, B: 2}}", "build: {args: [A=3]}", "build",
         {"context": f"{DIRECTORY}/a", "args": {"A": "3", "B": "2"}, "dockerfile": "Dockerfile"}),
        ("ulimits: {a: 1, b: {soft: 1, hard: 2}}", "ulimits: {a: {soft: 3, hard: 4}, b: 5}", "ulimits",
         {"a": {"soft": 3, "hard": 4}, "b": 5}),
        ("depends_on: [other]", "depends_on: {other: {condition: service_healthy}}", "depends_on",
         {"other": {"condition": "service_healthy", "required": True}}),
        ("mem_limit: 1g", "mem_limit: null", "mem_limit", "1073741824"),
        ("privileged: true", "privileged: false", "privileged", False),
        ("networks: [default]", "networks: {default: {aliases: [a]}}", "networks", {"default": {"aliases": ["a"]}}),
        ("x-a: {b: 1, c: 1}", "x-a: {b: 2}", "x-a", {"b": 2}),
    ],
)  # fmt: skip
def test_a_later_file_lies_on_top_of_an_earlier_one(first: str, second: str, key: str, value: Any) -> None:
    assert _web("image: a, " + first, second).get(key) == value


def test_a_mapping_and_a_list_cannot_be_merged() -> None:
    with pytest.raises(Invalid, match="cannot be merged"):
        _web("image: a, newer: [a]", "newer: {a: 1}")


INCLUDED = {
    ".env": "V=top\n",
    "sub/.env": "V=sub\nONLY=sub\n",
    "sub/x.env": "X=1\n",
    "sub/inc.yaml": (
        "services:\n"
        "  s: {image: 's-$V-${ONLY:-no}-$COMPOSE_PROJECT_NAME', volumes: ['./d:/d', 'data:/data'],\n"
        "      env_file: x.env, environment: [ONLY], build: {target: t}}\n"
        "volumes: {data: }\n"
    ),
}


def test_an_included_file_has_its_own_directory_and_variables() -> None:
    project = loaded({**INCLUDED, "compose.yaml": "include: [sub/inc.yaml]\nservices: {w: {image: 'w-${ONLY:-no}'}}"})
    services = project.document["services"]
    assert services["s"]["image"] == "s-top-sub-sbx-a"
    assert services["w"]["image"] == "w-no"
    assert services["s"]["environment"] == {"X": "1", "ONLY": "sub"}
    assert services["s"]["volumes"][0]["source"] == f"{DIRECTORY}/sub/d"
    assert services["s"]["build"]["context"] == f"{DIRECTORY}/sub"
    assert project.document["volumes"] == {"data": {"name": "sbx-a_data"}}
    assert set(project.files) == {".env", "compose.yaml", "sub/.env", "sub/inc.yaml", "sub/x.env"}
    assert "include" not in project.document


def test_an_include_can_name_another_directory_and_files_of_variables() -> None:
    include = "include: [{path: sub/inc.yaml, project_directory: ., env_file: [sub/.env]}]"
    project = loaded({**INCLUDED, "x.env": "X=top", "compose.yaml": include})
    service = project.document["services"]["s"]
    assert service["volumes"][0]["source"] == f"{DIRECTORY}/d"
    assert service["environment"] == {"X": "top", "ONLY": "sub"}


def test_files_of_one_include_are_merged() -> None:
    tree = {
        **INCLUDED,
        "sub/more.yaml": "services: {s: {image: more}}",
        "compose.yaml": "include: [{path: [sub/inc.yaml, sub/more.yaml]}]",
    }
    assert loaded(tree).document["services"]["s"]["image"] == "more"


def test_one_name_cannot_come_from_a_file_and_from_what_it_includes() -> None:
    with pytest.raises(Invalid, match=r"services\.s conflicts"):
        loaded({**INCLUDED, "compose.yaml": "include: [sub/inc.yaml]\nservices: {s: {image: x}}"})


def test_an_override_file_changes_what_the_first_file_includes() -> None:
    tree = {**INCLUDED, "compose.yaml": "include: [sub/inc.yaml]", "compose.override.yaml": "services: {s: {image: x}}"}
    assert loaded(tree).document["services"]["s"]["image"] == "x"


EXTENDED = {
    "lib/base.yaml": (
        "services:\n"
        "  base: {image: 'b-$V', volumes: ['./d:/d'], env_file: x.env, build: ., labels: {a: 1},\n"
        "         environment: {A: 1, B: 1}, ports: ['80:80'], extends: {file: deep/base.yaml, service: deep}}\n"
    ),
    "lib/x.env": "X=1\n",
    "lib/deep/base.yaml": (
        "services: {deep: {image: deep, command: hi, environment: {A: 0, Z: 0}, volumes: ['./q:/q']}}\n"
    ),
    ".env": "V=v\n",
}


def test_a_service_can_extend_one_of_another_file_that_extends_a_third() -> None:
    web = (
        "services:\n  web:\n    extends: {file: lib/base.yaml, service: base}\n"
        "    environment: {B: 2}\n    ports: ['81:80']\n"
    )
    project = loaded({**EXTENDED, "compose.yaml": web})
    found = project.document["services"]["web"]
    assert found["image"] == "b-v"
    assert found["command"] == ["hi"]
    assert found["environment"] == {"A": "1", "B": "2", "X": "1", "Z": "0"}
    assert [mount["source"] for mount in found["volumes"]] == [f"{DIRECTORY}/lib/deep/q", f"{DIRECTORY}/lib/d"]
    assert [port["published"] for port in found["ports"]] == ["80", "81"]
    assert found["build"]["context"] == f"{DIRECTORY}/lib"
    assert not {"extends", "env_file"} & set(found)
    assert project.origins[("services", "web", "image")] == Origin("lib/base.yaml", 2)
    assert project.origins[("services", "web", "command")].file == "lib/deep/base.yaml"
    assert project.origins[("services", "web", "ports", 1)] == Origin("compose.yaml", 5)


def test_two_services_that_extend_one_share_nothing() -> None:
    text = (
        "services:\n  a: {extends: c, cap_add: [X]}\n  b: {extends: c, cap_add: [Y]}\n  c: {image: c, cap_add: [Z]}\n"
    )
    services = loaded(text).document["services"]
    assert [services[name]["cap_add"] for name in "abc"] == [["Z", "X"], ["Z", "Y"], ["Z"]]


def test_anchors_and_merge_keys_are_expanded_without_sharing() -> None:
    text = (
        "x-b: &b {image: c, environment: &e {A: 1, B: 2}}\n"
        "services:\n"
        "  c: {<<: *b, environment: {<<: *e, B: 3}}\n"
        "  d: {<<: [{image: d}, *b], command: x}\n"
    )
    services = loaded({"compose.yaml": text, "compose.override.yaml": "services: {d: {environment: {A: 9}}}"}).document
    assert services["services"]["c"]["environment"] == {"A": "1", "B": "3"}
    assert services["services"]["d"]["environment"] == {"A": "9", "B": "2"}
    assert services["services"]["d"]["image"] == "d"
    assert services["x-b"]["environment"] == {"A": 1, "B": 2}


def test_several_documents_of_one_file_are_merged() -> None:
    text = "services: {c: {image: c}}\n---\nservices: {c: {command: x}, d: {image: d}}\n"
    assert loaded(text).document["services"]["c"]["command"] == ["x"]


@pytest.mark.parametrize(
    ("present", "read"),
    [
        (["docker-compose.yaml", "docker-compose.yml", "compose.yml", "compose.yaml"], ["compose.yaml"]),
        (["docker-compose.yaml", "docker-compose.yml"], ["docker-compose.yml"]),
        (["compose.yml", "compose.override.yaml"], ["compose.yml", "compose.override.yaml"]),
        (["docker-compose.yml", "docker-compose.override.yml"], ["docker-compose.yml", "docker-compose.override.yml"]),
        (["compose.yaml", "compose.override.yaml", "compose.override.yml"], ["compose.yaml", "compose.override.yml"]),
    ],
)
def test_the_default_files_are_found_with_their_override(present: list[str], read: list[str]) -> None:
    assert list(loaded(dict.fromkeys(present, "services: {a: {image: a}}")).files) == read


def test_a_file_that_is_named_has_no_override() -> None:
    tree = dict.fromkeys(["compose.yaml", "compose.override.yaml", "b/x.yaml"], "services: {a: {image: a, build: .}}")
    assert loaded(tree, files=["compose.yaml"]).files == ("compose.yaml",)
    project = loaded({**tree, "b/.env": "A=1"}, files=["b/x.yaml"])
    assert project.files == ("b/.env", "b/x.yaml")
    assert project.document["services"]["a"]["build"]["context"] == f"{DIRECTORY}/b"


def test_a_repository_without_a_compose_file_is_told_what_was_looked_for() -> None:
    with pytest.raises(Invalid, match=r"docker-compose\.yml"):
        loaded({"README": ""})


def test_files_and_profiles_can_come_from_the_repository() -> None:
    tree = {
        ".env": "COMPOSE_FILE=a.yaml;b.yaml\nCOMPOSE_PATH_SEPARATOR=;\nCOMPOSE_PROFILES=p, q\n",
        "a.yaml": "services: {a: {image: a, profiles: [p]}, b: {image: b, profiles: [z]}}",
        "b.yaml": "services: {a: {command: x}}",
    }
    project = loaded(tree)
    assert project.files == (".env", "a.yaml", "b.yaml")
    assert project.document["services"] == {"a": {"image": "a", "command": ["x"], "networks": {"default": None}}}
    assert set(loaded(tree, profiles=["*"]).document["services"]) == {"a", "b"}
    assert set(loaded(tree, profiles=["z"]).document["services"]) == {"b"}


def test_given_variables_win_over_those_of_the_repository_and_the_process_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FROM_PROCESS", "leaked")
    tree = {
        ".env": "A=repo\nB=repo\n",
        "compose.yaml": "services: {w: {image: '$A-$B-${FROM_PROCESS:-unset}', environment: [FROM_PROCESS, A]}}",
    }
    project = loaded(tree, environment={"A": "given"})
    assert project.document["services"]["w"]["image"] == "given-repo-unset"
    assert project.document["services"]["w"]["environment"] == {"A": "given"}


def test_a_variable_that_is_not_set_is_noted() -> None:
    assert loaded("services: {w: {image: 'a$NOPE'}}").notes == (
        "the variable NOPE is not set: an empty text takes its place",
    )


def test_files_of_variables_lie_below_what_a_service_says() -> None:
    tree = {
        "compose.yaml": (
            "services: {w: {image: a,\n"
            " env_file: [one.env, {path: gone, required: false}, {path: two.env, format: raw}],\n"
            " environment: {B: own}, label_file: l.env, labels: {x: own}}}"
        ),
        "one.env": "A='1'\nB=file\nC=$D\n",
        "two.env": "E='$D'\n",
        "l.env": "x=file\ny=file\n",
        ".env": "D=d\n",
    }
    found = loaded(tree).document["services"]["w"]
    assert found["environment"] == {"A": "1", "B": "own", "C": "d", "E": "'$D'"}
    assert found["labels"] == {"x": "own", "y": "file"}
    assert not {"env_file", "label_file"} & set(found)


def test_only_the_resources_that_are_used_stay_and_have_names() -> None:
    text = (
        "services: {w: {image: a, networks: [n, e], volumes: ['data:/v', 'old:/o'], secrets: [s], configs: [c]}}\n"
        "networks: {n: , e: {external: true}, unused: }\n"
        "volumes: {data: {driver: local, driver_opts: {o: bind, device: ./d}}, old: {external: {name: x}}}\n"
        "secrets: {s: {file: ./s.txt}}\n"
        "configs: {c: {content: 'x$$y', name: own}}\n"
    )
    document = loaded(text).document
    assert document["networks"] == {"n": {"name": "sbx-a_n"}, "e": {"external": True, "name": "e"}}
    assert document["volumes"]["data"]["driver_opts"]["device"] == f"{DIRECTORY}/d"
    assert document["volumes"]["old"] == {"external": True, "name": "x"}
    assert document["secrets"] == {"s": {"file": f"{DIRECTORY}/s.txt", "name": "sbx-a_s"}}
    assert document["configs"] == {"c": {"content": "x$y", "name": "own"}}
    assert document["name"] == "sbx-a"


def test_dependencies_that_follow_from_other_keys_are_written_out() -> None:
    text = (
        "services:\n"
        "  a: {image: a, links: ['b:x'], volumes_from: ['c:ro', 'container:z']}\n"
        "  b: {image: b, network_mode: 'service:c'}\n"
        "  c: {image: c, pid: 'container:x'}\n"
    )
    services = loaded(text).document["services"]
    started = {"condition": "service_started", "required": True}
    assert services["a"]["depends_on"] == {"b": {**started, "restart": True}, "c": started}
    assert services["b"]["depends_on"] == {"c": {**started, "restart": True}}
    assert "depends_on" not in services["c"]


def test_a_dependency_on_a_service_that_is_off_goes_or_is_refused() -> None:
    text = (
        "services: {{a: {{image: a, depends_on: {{b: {{condition: service_started, required: {required}}}}}}},"
        " b: {{image: b, profiles: [p]}}}}"
    )
    assert "depends_on" not in loaded(text.format(required="false")).document["services"]["a"]
    with pytest.raises(Invalid, match="not in a profile"):
        loaded(text.format(required="true"))


def test_each_place_of_a_document_has_an_origin() -> None:
    text = (
        "name: x\nservices:\n  web:\n    image: a\n    ports:\n      - 80\n      - '1-2:1-2'\n"
        "    environment:\n      A: 1\n"
    )
    project = loaded(text)
    at = {path: origin.line for path, origin in project.origins.items()}
    assert at[("services",)] == 2
    assert at[("services", "web")] == 3
    assert at[("services", "web", "image")] == 4
    assert at[("services", "web", "ports", 0)] == 6
    assert at[("services", "web", "ports", 2)] == 7
    assert at[("services", "web", "environment", "A")] == 9
    assert project.origin(("services", "web", "ports", 2, "target")) == Origin("compose.yaml", 7)
    assert project.origin(("networks", "default", "name")) is not None


def test_no_error_of_the_loader_is_a_bug() -> None:
    for text in ("services: {w: {image: a, ports: [1]}}\n---\n- a", "? a\n", "services: {w: !reset null}", "!reset x"):
        with pytest.raises(SandboxerError):
            loaded(text)
