"""What the gate sends instead of what the file says, and how it keeps opened paths from what containers write."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sandboxer.extensions.compose_ssh.policy import ComposeProgram, Verdict
from sandboxer.extensions.compose_ssh.policy.paths import topmost
from tests.extensions.compose.policy.corpora import DIRECTORY, PRISTINE, SANDBOX, Case, judged, loaded, verdict_on


def project(root: Path, text: str, **files: str) -> Path:
    """A repository with that compose file; `__` in the name of a file stands for a slash."""
    names = {"compose.yaml": text} | {name.replace("__", "/"): body for name, body in files.items()}
    return Case(name="", files=names, links={}).lay_out(root)


def sent(verdict: Verdict, service: str = "a") -> dict[str, Any]:
    """What is sent of a service that passed."""
    assert verdict.violations == ()
    assert verdict.unsupported == ()
    found: dict[str, Any] = verdict.document["services"][service]
    return found


@pytest.mark.parametrize("port", ["8080:80", "0.0.0.0:8080:80", "[::]:8080:80", "192.0.2.7:8080:80"])
def test_a_port_goes_to_the_loopback_with_a_note_unless_it_may_be_public(port: str, tmp_path: Path) -> None:
    root = project(tmp_path, f'services: {{a: {{image: nginx, ports: ["{port}"]}}}}')
    verdict = judged(root)
    assert sent(verdict)["ports"] == [{"host_ip": "127.0.0.1", "target": 80, "published": "8080", "protocol": "tcp"}]
    assert ["127.0.0.1" in note and "port:public" in note for note in verdict.port_notes] == [True]
    public = judged(root, grants=["port:public"])
    assert sent(public)["ports"][0].get("host_ip") != "127.0.0.1"
    assert public.port_notes == ()


def test_a_port_of_the_loopback_stays_without_a_note(tmp_path: Path) -> None:
    verdict = judged(project(tmp_path, 'services: {a: {image: nginx, ports: ["127.0.0.2:8080:80"]}}'))
    assert sent(verdict)["ports"][0]["host_ip"] == "127.0.0.2"
    assert verdict.port_notes == ()


def test_a_built_image_gets_the_name_of_the_sandbox_wherever_it_is_used(tmp_path: Path) -> None:
    text = (
        "services: {a: {build: ., image: 'nginx'}, b: {image: 'docker.io/library/nginx:latest'}, c: {image: 'nginx:1'}}"
    )
    verdict = judged(project(tmp_path, text, Dockerfile="FROM alpine\n"))
    images = [sent(verdict, name)["image"] for name in "abc"]
    assert images == [f"{SANDBOX}-a", f"{SANDBOX}-a", "nginx:1"]


def test_two_services_whose_names_look_alike_do_not_share_an_image(tmp_path: Path) -> None:
    text = "services: {a.b: {build: .}, a-b: {build: {context: ., target: x}}}"
    verdict = judged(project(tmp_path, text, Dockerfile="FROM alpine AS x\n"))
    assert len({sent(verdict, name)["image"] for name in ("a.b", "a-b")}) == 2


def test_a_variable_without_a_value_stays_unset_unless_it_is_granted(tmp_path: Path) -> None:
    root = project(tmp_path, "services: {a: {image: nginx, environment: [A=1, HOME]}}")
    assert sent(judged(root))["environment"] == {"A": "1"}
    found = loaded(root)
    found.document["services"]["a"]["environment"]["HOME"] = None
    verdict = verdict_on(found, root)
    assert sent(verdict)["environment"] == {"A": "1"}
    assert any("env:HOME" in note for note in verdict.notes)
    assert sent(verdict_on(found, root, grants=["env:HOME"]))["environment"] == {"A": "1", "HOME": None}


def test_a_file_system_in_memory_always_has_a_size(tmp_path: Path) -> None:
    text = "services: {a: {image: nginx, tmpfs: [/a, '/b:size=1m'], volumes: [{type: tmpfs, target: /c}]}}"
    service = sent(judged(project(tmp_path, text)))
    assert service["tmpfs"] == ["/a:size=1024m", "/b:size=1m"]
    assert service["volumes"] == [{"type": "tmpfs", "target": "/c", "tmpfs": {"size": 1 << 30}}]


def test_labels_that_programs_on_the_host_act_on_are_left_out(tmp_path: Path) -> None:
    text = "services: {a: {image: nginx, labels: {traefik.enable: 'true', org.opencontainers.image.title: x}}}"
    verdict = judged(project(tmp_path, text))
    assert sent(verdict)["labels"] == {"org.opencontainers.image.title": "x"}
    assert any("labels" in note for note in verdict.notes)


def test_names_of_networks_and_volumes_are_left_to_the_project_unless_external_is_granted(tmp_path: Path) -> None:
    text = "services: {a: {image: nginx, volumes: ['v:/v', 'w:/w'], networks: [n]}}\n"
    text += "volumes: {v: {name: shop}, w: {external: true, name: prod}}\nnetworks: {n: {name: front}}\nname: other"
    document = judged(project(tmp_path, text), grants=["volume:prod"]).document
    assert document["volumes"] == {"v": {}, "w": {"external": True, "name": "prod"}}
    assert document["networks"]["n"] == {}
    assert "name" not in document


def test_extensions_of_the_file_are_not_sent(tmp_path: Path) -> None:
    document = judged(project(tmp_path, "services: {a: {image: nginx, x-a: 1}}\nx-b: {c: 1}")).document
    assert "x-" not in str(document)


def test_a_project_that_nobody_writes_to_needs_no_copy(tmp_path: Path) -> None:
    text = "services: {a: {build: ., volumes: ['./conf:/conf:ro'], secrets: [s]}}\nsecrets: {s: {file: ./s}}"
    verdict = judged(project(tmp_path, text, Dockerfile="FROM alpine\n", conf__x="", s=""))
    assert verdict.copies == ()
    assert PRISTINE not in str(verdict.document)


def test_what_is_opened_beneath_a_writable_bind_comes_from_the_copy(tmp_path: Path) -> None:
    text = """
services:
  a: {build: ./app, image: x, volumes: [".:/all"]}
  b: {image: nginx, volumes: ["./conf:/conf:ro"], secrets: [s], configs: [c]}
secrets: {s: {file: ./s}}
configs: {c: {file: ./deep/c}}
"""
    root = project(tmp_path, text, app__Dockerfile="FROM alpine\n", conf__x="", s="", deep__c="")
    verdict = judged(root)
    assert verdict.violations == ()
    document = verdict.document
    assert document["services"]["a"]["volumes"][0]["source"] == DIRECTORY
    build = document["services"]["a"]["build"]
    assert (build["context"], build["dockerfile"]) == (f"{PRISTINE}/app", f"{PRISTINE}/app/Dockerfile")
    assert document["services"]["b"]["volumes"][0]["source"] == f"{PRISTINE}/conf"
    assert document["secrets"]["s"]["file"] == f"{PRISTINE}/s"
    assert document["configs"]["c"]["file"] == f"{PRISTINE}/deep/c"
    assert verdict.copies == ("app", "conf", "deep/c", "s")
    assert any("conf" in note and "as it was sent" in note for note in verdict.notes)


def test_a_context_that_holds_a_writable_bind_comes_from_the_copy_with_its_dockerfile(tmp_path: Path) -> None:
    text = "services: {a: {build: ., volumes: ['./data:/data']}}"
    verdict = judged(project(tmp_path, text, Dockerfile="FROM alpine\n", data__x=""))
    build = sent(verdict)["build"]
    assert (build["context"], build["dockerfile"]) == (PRISTINE, f"{PRISTINE}/Dockerfile")
    assert verdict.copies == ("",)
    assert sent(verdict)["volumes"][0]["source"] == f"{DIRECTORY}/data"


def test_a_missing_path_beneath_a_writable_bind_is_made_in_the_copy(tmp_path: Path) -> None:
    text = "services: {a: {image: x, volumes: ['./src:/s', './src/cache:/c:ro']}}"
    verdict = judged(project(tmp_path, text, src__x=""))
    assert [mount["source"] for mount in sent(verdict)["volumes"]] == [f"{DIRECTORY}/src", f"{PRISTINE}/src/cache"]
    assert verdict.copies == ()


def test_the_same_directory_for_two_services_is_shared_and_not_copied(tmp_path: Path) -> None:
    text = "services: {a: {image: x, volumes: ['./out:/o']}, b: {image: y, volumes: ['./out:/o:ro']}}"
    verdict = judged(project(tmp_path, text, out__x=""))
    sources = [sent(verdict, name)["volumes"][0]["source"] for name in "ab"]
    assert sources == [f"{DIRECTORY}/out"] * 2
    assert verdict.copies == ()


def test_a_refused_pair_names_both_binds(tmp_path: Path) -> None:
    text = "services: {a: {image: x, volumes: ['.:/all']}, b: {image: y, volumes: ['./data:/data']}}"
    (found,) = judged(project(tmp_path, text, data__x="")).violations
    assert found.path == "services.b.volumes[0]"
    assert "services.a.volumes[0]" in found.gives_away
    assert found.grant is None


def test_a_volume_that_binds_counts_as_written(tmp_path: Path) -> None:
    text = f"""
services: {{a: {{image: x, volumes: ["v:/v"]}}, b: {{image: y, volumes: ["./d/in:/in"]}}}}
volumes: {{v: {{driver_opts: {{type: none, o: bind, device: {DIRECTORY}/d}}}}}}
"""
    (found,) = judged(project(tmp_path, text, d__in__x="")).violations
    assert found.path == "services.b.volumes[0]"
    assert "volumes.v.driver_opts.device" in found.gives_away


def test_a_granted_directory_of_the_host_is_kept_apart_too(tmp_path: Path) -> None:
    text = "services: {a: {image: x, volumes: ['/srv/data:/d']}, b: {image: y, volumes: ['/srv/data/in:/in:ro']}}"
    grants = ["bind:/srv/data", "bind:/srv/data/in:ro"]
    (found,) = judged(project(tmp_path, text), grants=grants).violations
    assert found.path == "services.b.volumes[0]"


def test_a_granted_directory_that_holds_the_sandbox_itself_is_refused_beside_its_other_paths(tmp_path: Path) -> None:
    text = "services: {a: {image: x, volumes: ['/srv/work:/w', './conf:/conf:ro']}}"
    (found,) = judged(project(tmp_path, text, conf__x=""), grants=["bind:/srv/work"]).violations
    assert found.path == "services.a.volumes[1]"
    assert "services.a.volumes[0]" in found.gives_away


def test_a_grant_for_reading_does_not_give_writing(tmp_path: Path) -> None:
    root = project(tmp_path, "services: {a: {image: x, volumes: ['/srv/data:/d']}}")
    (found,) = judged(root, grants=["bind:/srv/data:ro"]).violations
    assert found.grant == "bind:/srv/data"
    root = project(tmp_path, "services: {a: {image: x, volumes: ['/srv/data:/d:ro']}}")
    assert judged(root, grants=["bind:/srv/data:ro"]).violations == ()
    assert judged(root, grants=["bind:/srv"]).violations != ()


def test_a_granted_path_is_not_relabelled(tmp_path: Path) -> None:
    root = project(tmp_path, "services: {a: {image: x, volumes: ['/srv/data:/d:z']}}")
    assert ["label" in found.gives_away for found in judged(root, grants=["bind:/srv/data"]).violations] == [True]


def test_all_violations_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    text = "services:\n  a:\n    image: x\n    privileged: true\n    pid: host\n    volumes:\n      - /etc:/etc\n"
    found = judged(project(tmp_path, text)).violations
    assert [(one.file, one.line, one.path, one.grant) for one in found] == [
        ("compose.yaml", 4, "services.a.privileged", "privileged"),
        ("compose.yaml", 5, "services.a.pid", "pid:host"),
        ("compose.yaml", 7, "services.a.volumes[0]", "bind:/etc"),
    ]


def test_what_a_dockerfile_asks_for_is_told_with_its_own_line(tmp_path: Path) -> None:
    root = project(tmp_path, "services: {a: {build: ./app}}", app__Dockerfile="FROM alpine\n\nRUN --mount=type=ssh x\n")
    (found,) = judged(root).violations
    assert (found.file, found.line) == ("app/Dockerfile", 3)


def test_what_a_program_lacks_is_told_without_sending_anything(tmp_path: Path) -> None:
    root = project(tmp_path, "services: {a: {image: x, uts: private, configs: [c]}}\nconfigs: {c: {content: x}}")
    assert sent(judged(root))["configs"]
    for program in (ComposeProgram.V1, ComposeProgram.PODMAN):
        verdict = judged(root, program=program)
        assert verdict.document == {}
        assert "configs.c.content" in {one.path for one in verdict.unsupported}


def test_limits_of_deploy_hold_with_the_program_that_does_not_read_deploy(tmp_path: Path) -> None:
    text = "services: {a: {image: x, deploy: {replicas: 2, resources: {limits: {memory: 64m, cpus: '0.5', pids: 9}}}}}"
    service = sent(judged(project(tmp_path, text), program=ComposeProgram.V1))
    assert "deploy" not in service
    assert (service["scale"], service["cpus"], service["pids_limit"]) == (2, 0.5, 9)
    assert str(service["mem_limit"]) == str(64 << 20)


def test_more_containers_than_a_host_bears_are_refused(tmp_path: Path) -> None:
    services = ", ".join(f"s{number}: {{image: x, scale: 20}}" for number in range(26))
    found = judged(project(tmp_path, f"services: {{{services}}}")).violations
    assert [one.path for one in found] == ["services"]


def test_a_path_is_sent_as_it_was_judged(tmp_path: Path) -> None:
    """A container that writes below what is granted could put a link before the dots."""
    text = "services: {a: {image: nginx, volumes: ['v:/v']}}\n"
    text += "volumes: {v: {driver_opts: {type: none, o: bind, device: /srv/pool/sub/..}}}"
    verdict = judged(project(tmp_path, text), grants=["bind:/srv/pool"])
    assert verdict.document["volumes"]["v"]["driver_opts"]["device"] == "/srv/pool"


def test_a_single_file_beneath_what_a_service_writes_comes_from_a_copy_also_without_ro(tmp_path: Path) -> None:
    text = "services:\n  php: {image: php, volumes: ['.:/app', './php.ini:/etc/php.ini']}\n"
    text += "  web: {image: nginx, volumes: ['./php.ini:/php.ini:ro']}\n"
    root = project(tmp_path, text)
    (root / "php.ini").touch()
    verdict = judged(root)
    assert verdict.violations == ()
    services = verdict.document["services"]
    assert services["php"]["volumes"][1]["source"] == services["web"]["volumes"][0]["source"] == f"{PRISTINE}/php.ini"
    assert services["php"]["volumes"][0]["source"] == DIRECTORY
    assert verdict.copies == ("php.ini",)
    assert any("what is written by it stays in a copy" in note for note in verdict.notes)


def test_a_refused_pair_is_named_as_the_file_names_it_with_what_to_do(tmp_path: Path) -> None:
    verdict = judged(project(tmp_path, "services: {a: {image: nginx, volumes: ['.:/app', './data:/data']}}"))
    (found,) = verdict.violations
    assert "./data lies beneath the whole repository, which services.a.volumes[0]" in found.gives_away
    assert "a named volume" in found.gives_away


def test_thousands_of_copies_and_of_wildcards_are_judged_in_no_time(tmp_path: Path) -> None:
    services = {f"s{i}": {"image": "nginx", "volumes": [f"./f{i}_{k}:/a{k}:ro" for k in range(50)]} for i in range(200)}
    services["w"] = {"image": "nginx", "volumes": [".:/app"]}
    services["b"] = {"build": "."}
    root = project(tmp_path, json.dumps({"services": services}))
    for name in (f"f{i}_{k}" for i in range(200) for k in range(50)):
        (root / name).touch()
    (root / "Dockerfile").write_text("FROM nginx\n" + "COPY ./*_1 /x\n" * 1900)
    found = loaded(root)
    began = time.process_time()
    verdict = verdict_on(found, root)
    assert verdict.copies == ("",)  # all of it, as the build's context holds the others
    assert time.process_time() - began < 15  # what this guards against took 40 s


@pytest.mark.parametrize(
    ("paths", "top"),
    [
        (["a", "a/b", "ab", "c/d/e", "c/d"], ["a", "ab", "c/d"]),
        (["", "a"], [""]),
        ([], []),
        (["a/b", "a/c"], ["a/b", "a/c"]),
    ],
)
def test_what_lies_below_another_copy_is_not_copied_twice(paths: list[str], top: list[str]) -> None:
    assert topmost(paths) == top
