"""From a request to the one file that runs."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from sandboxer.errors import Denied, Invalid
from sandboxer.extensions.compose_ssh import loader, project
from sandboxer.extensions.compose_ssh.options import ComposeOptions, parse_compose_command
from tests.extensions.compose.sandboxes import spec

PROGRAMS = ("docker compose", "docker-compose", "podman-compose")


def prepared(
    repo: Path, *, program: str = "docker compose", settings: dict[str, str] | None = None, **options: Any
) -> project.PreparedProject:
    wanted = spec(repo, sandbox_id="k3v9x2m7q4ta", options=ComposeOptions(**options))
    return project.prepare_project(
        wanted,
        parse_compose_command(program),
        directory="/srv/sbx-k3v9x2m7q4ta",
        state="/srv/.sandboxer/sbx-k3v9x2m7q4ta",
        labels={"sandboxer.id": "k3v9x2m7q4ta", "sandboxer.profile": "a$b"},
        env=settings or {},
    )


def repository(folder: Path, compose: str, **files: str) -> Path:
    folder.mkdir()
    for name, text in {"compose.yaml": compose, **files}.items():
        (folder / name).write_text(text)
    return folder


def test_a_refusal_names_each_place_once_in_the_repositorys_words_and_grants_that_can_be_pasted(tmp_path: Path) -> None:
    compose = """
services:
  a: {build: ., volumes: ["./data:/d", "./data/sub:/s", "/srv/a:/srv:ro"]}
"""
    folder = repository(tmp_path / "r", compose, Dockerfile="# syntax=x/y\nFROM alpine\nADD https://a.b/c /c\n")
    (folder / "data" / "sub").mkdir(parents=True)
    with pytest.raises(Denied) as caught:
        prepared(folder)
    error = caught.value
    places = ["services.a.build.dockerfile", "services.a.volumes[1]", "services.a.volumes[2]"]
    assert error.message.endswith(f"granted: {', '.join(places)}")
    told = [one["gives_away"] for one in (error.details or {})["violations"]]
    assert any("./data/sub lies beneath ./data, " in text for text in told)
    pasted = yaml.safe_load(error.hint.partition(" in a profile")[0])
    assert pasted == {"options": {"grants": ["frontend:x/y", "bind:/srv/a:ro"]}}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("publish", ["declared", "remapped", "none"])
def test_labels_names_and_ports_of_ours_are_in_the_file_and_nothing_is_left_to_be_resolved(
    tmp_path: Path, program: str, publish: str
) -> None:
    compose = (
        "name: theirs\nservices:\n  a: {image: x, ports: ['8080:80'], container_name: fixed, environment: [X=$$Y]}\n"
        "networks: {default: {name: shared}}\nvolumes: {v: {name: shared}}\n"
    )
    found = prepared(repository(tmp_path / "r", compose), program=program, publish=publish)
    document = json.loads(found.file)
    service = document["services"]["a"]
    assert service["labels"] == {"sandboxer.id": "k3v9x2m7q4ta", "sandboxer.profile": "a$$b"}
    assert document["networks"]["default"]["labels"] == service["labels"]
    assert "name" not in document
    assert "name" not in document["networks"]["default"]
    ports = json.dumps(service.get("ports", []))
    assert ("8080" in ports) is (publish == "declared")
    assert ("127.0.0.1" in ports) is (publish != "none")
    assert ("container_name" in service) is (publish == "declared" and program != "podman-compose")
    assert "$$Y" in json.dumps(service["environment"])
    assert len(found.sha256) == 64
    assert found.services == {"a": 1}


def test_a_request_leaves_nothing_open(tmp_path: Path) -> None:
    good = repository(tmp_path / "good", "services: {a: {image: x}}\n")
    bad = repository(tmp_path / "bad", "services: {a: {image: [}}\n")
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        prepared(good)
        with pytest.raises(Invalid):
            prepared(bad)
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_an_override_file_is_no_longer_ignored(tmp_path: Path) -> None:
    more = {"compose.override.yaml": "services: {a: {privileged: true}}\n"}
    with pytest.raises(Denied) as caught:
        prepared(repository(tmp_path / "r", "services: {a: {image: nginx}}\n", **more))
    (violation,) = (caught.value.details or {})["violations"]
    assert (violation["file"], violation["grant"]) == ("compose.override.yaml", "privileged")
    assert caught.value.fault == "caller"


def test_of_a_trusted_project_the_first_of_the_known_names_is_taken_or_what_its_dotenv_names(tmp_path: Path) -> None:
    repo = tmp_path / "r"
    (repo / "sub").mkdir(parents=True)
    for name in reversed(loader.CANDIDATES):
        (repo / name).write_text(f"services: {{main: {{image: '{name}'}}}}\n")
        assert f'"{name}"'.encode() in prepared(repo, policy="trusted").file
    (repo / "sub" / "own.yaml").write_text("services: {main: {image: 'own'}}\n")
    (repo / ".env").write_text("COMPOSE_FILE=sub/own.yaml\n")
    found = prepared(repo, policy="trusted")
    assert b'"own"' in found.file
    assert found.project == "sub"
    assert prepared(repo, policy="trusted", settings={"COMPOSE_FILE": "compose.yml"}).project == ""


def test_a_trusted_project_of_several_files_is_resolved_and_not_judged(tmp_path: Path) -> None:
    more = {"compose.override.yaml": "services: {a: {privileged: true, volumes: ['/etc:/host']}}\n"}
    repo = repository(tmp_path / "r", "services: {a: {image: 'x:${SETTING}', ports: ['80:80']}}\n", **more)
    for program in PROGRAMS:
        found = prepared(repo, program=program, policy="trusted", settings={"SETTING": "known"})
        service = json.loads(found.file)["services"]["a"]
        assert (service["image"], service["privileged"], service["ports"]) == ("x:known", True, ["127.0.0.1::80"])
        assert len(found.sha256) == 64
        assert found.notes[0] == "the compose file was not judged (policy: trusted)"
    with pytest.raises(Invalid, match="no service 'c'"):
        prepared(repo, policy="trusted", main_service="c")


def test_variables_come_from_the_repository_and_the_profile_and_from_settings_that_are_granted(tmp_path: Path) -> None:
    compose = "services: {a: {image: 'nginx:${TAG:-none}', environment: [SECRET]}}\n"
    repo = repository(tmp_path / "r", compose, **{".env": "TAG=own\n"})
    settings = {"TAG": "settings", "SECRET": "canary"}
    plain = prepared(repo, settings=settings)
    assert b"nginx:own" in plain.file
    assert b"canary" not in plain.file
    assert b"nginx:profile" in prepared(repo, settings=settings, env={"TAG": "profile"}).file
    granted = prepared(repo, settings=settings, grants=["env:SECRET"])
    assert b"canary" in granted.file
    assert [note for note in granted.notes if "env:SECRET" in note]


def test_a_service_that_the_profile_names_must_be_there(tmp_path: Path) -> None:
    repo = repository(tmp_path / "r", "services: {b: {image: nginx}, a: {image: nginx, deploy: {replicas: 0}}}\n")
    assert prepared(repo).main == "b"
    assert prepared(repo).services == {"b": 1}
    with pytest.raises(Invalid, match="no service 'c'"):
        prepared(repo, main_service="c")


@pytest.mark.parametrize(
    "options", [{"grants": ["everything"]}, {"env": {"A=B": "c"}}, {"policy": "lax"}, {"grants": "privileged"}]
)
def test_options_that_are_wrong_are_told(options: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(options, ComposeOptions)


def refusal(repo: Path, **options: Any) -> Denied:
    with pytest.raises(Denied) as found:
        prepared(repo, **options)
    return found.value


def test_the_grants_of_a_hint_can_be_pasted_and_allow_it(tmp_path: Path) -> None:
    volumes = ["/srv/a b:/a", "/srv/[x]:/b", "/srv/#c:/c:ro", "/srv/- d:/d", "/srv/{e}:/e"]
    compose = {"services": {"a": {"image": "nginx", "volumes": volumes, "cap_add": ["NET_ADMIN"]}}}
    repo = repository(tmp_path / "r", json.dumps(compose))
    hint = refusal(repo).hint
    text = hint[hint.index("{grants: ") : hint.index("}", hint.rindex("]")) + 1]
    grants = yaml.safe_load(text)["grants"]
    assert len(grants) == 6
    assert prepared(repo, grants=grants).services == {"a": 1}


def test_of_thousands_of_violations_as_many_are_told_as_a_person_could_read(tmp_path: Path) -> None:
    services = {f"s{number}": {"image": "nginx", "privileged": True} for number in range(700)}
    error = refusal(repository(tmp_path / "r", json.dumps({"services": services})))
    assert "asks for 701 things" in error.message  # with the number of containers
    assert len((error.details or {})["violations"]) == project.MOST_TOLD


def test_of_thousands_of_notes_too(tmp_path: Path) -> None:
    services = {"a": {"image": "nginx", "ports": [f"{number}:80" for number in range(1, 901)]}}
    notes = prepared(repository(tmp_path / "r", json.dumps({"services": services})), publish="declared").notes
    assert len(notes) == project.MOST_TOLD + 1
    assert notes[-1] == "400 notes more are not told"


@pytest.mark.parametrize(
    "compose", ["services: {a: {image: nginx}}", "services: {a: {image: nginx, pid: host}}", "services: 1"]
)
def test_a_server_that_prepares_many_keeps_no_file_open(tmp_path: Path, compose: str) -> None:
    repo = repository(tmp_path / "r", compose)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with suppress(Denied, Invalid):
            prepared(repo)
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 10
