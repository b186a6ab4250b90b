"""How the files of a project are found and put together: overrides, includes, extends, variables, profiles."""

from __future__ import annotations

from typing import Any

import pytest

from sandboxer.errors import Invalid, SandboxerError
from sandboxer.extensions.compose_ssh.loader import Origin
from tests.extensions.compose.loader.repositories import DIRECTORY, loaded

INGRESS = {"mode": "ingress", "protocol": "tcp"}
BIND = {"create_host_path": True}


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


def test_tags_on_what_is_followed_itself() -> None:
    """`include` and `extends` are followed before another file could be merged: a tag takes away, or means nothing."""
    other = "services: {o: {image: other}}"
    for include in (
        "!reset [x]",
        "[!reset x]",
        "[!override o.yaml]",
        "!override [o.yaml]",
        "[{path: !override [o.yaml]}]",
    ):
        tree: dict[str, str | bytes] = {
            "compose.yaml": f"services: {{a: {{image: own}}}}\ninclude: {include}",
            "o.yaml": other,
        }
        services = loaded(tree).document["services"]
        assert services["a"]["image"] == "own"
        assert ("o" in services) == ("override" in include), include
    for nothing in ("!reset []", "[!reset x]", "[]"):
        with pytest.raises(Invalid, match=r"include\[0\] has no path"):
            loaded(f"services: {{a: {{image: a}}}}\ninclude: [{{path: {nothing}}}]")
    for extends in ("{service: !override o, file: !override o.yaml}", "!override {service: o, file: o.yaml}"):
        tree = {"compose.yaml": f"services: {{a: {{extends: {extends}}}}}", "o.yaml": other}
        assert loaded(tree).document["services"]["a"]["image"] == "other", extends
    tree = {
        "compose.yaml": "services: {a: {extends: {service: o, file: o.yaml}}}",
        "o.yaml": "services: !override {o: {image: other}}",
    }
    assert loaded(tree).document["services"]["a"]["image"] == "other"
    tree = {"compose.yaml": "services: !override {a: {image: own}}\ninclude: [o.yaml]", "o.yaml": other}
    assert set(loaded(tree).document["services"]) == {"a", "o"}, "nothing of its own is lost"
