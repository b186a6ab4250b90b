"""A repository that asks for the host is refused by the real command before the host hears a word. No engine needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.running import Answer, Command
from tests.extensions.compose.policy.corpora import Case, cases
from tests.installations import lay_out
from tests.sizes import scaled
from tests.testbed.components import need
from tests.testbed.sshd import Sshd

GRANTING = """\
id: profile.granting
version: 1.0.0
extension: ext.compose-ssh
options: {grants: ["bind:/etc:ro"]}
ttl: {default: 1h}
inputs: {repo: {type: path, required: true}}
"""
HOSTILE = [case for case in cases("hostile.txt") if case.path != "@loader"]
PICKED = HOSTILE[:: max(1, len(HOSTILE) // scaled(20, soak=len(HOSTILE)))]
DENIED = 11
INVALID = 2
UNAVAILABLE = 8
NO_DAEMON = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"


@dataclass
class Gated:
    """An operator's installation that knows one host over SSH, and what that host has heard."""

    sandboxer: Command
    sshd: Sshd
    work_dir: Path
    root: Path

    def heard(self) -> list[str]:
        """Every connection that the host has seen."""
        return [line for line in self.sshd.log.read_text().splitlines() if "Connection from" in line]

    def create(self, repo: Path, *more: str, profile: str = "profile.compose-e2e", host: str = "alpha") -> Answer:
        """Ask for it."""
        words = ("create", "--profile", profile, "--input", f"repo={repo}", "--host", host, *more)
        return self.sandboxer(*words, seconds=120)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    need("sshd")
    root = tmp_path_factory.mktemp("gate")
    with Sshd(root / "sshd", alias="alpha") as sshd:
        host = {
            "address": sshd.host, "user": sshd.user, "port": sshd.port, "identity": str(sshd.identity),
            "known_hosts": str(sshd.known_hosts), "work_dir": str(root / "work"), "compose": "podman-compose",
        }  # fmt: skip
        dead = root / "bin" / "docker"
        dead.parent.mkdir()
        dead.write_text(f"#!/bin/sh\necho '{NO_DAEMON}' >&2; exit 1\n")
        dead.chmod(0o755)
        without = {**host, "compose": f"{dead} compose"}
        lay_out(root, config=json.dumps({"hosts": {"alpha": host, "no-daemon": without}}))
        (root / "config" / "profiles" / "profile.granting.yaml").write_text(GRANTING)
        yield Gated(Command(root), sshd, root / "work", root)


def hostile(folder: Path, compose: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "compose.yaml").write_text(compose)
    return folder


@pytest.mark.parametrize("case", PICKED, ids=lambda case: case.name)
def test_a_hostile_repository_is_denied_and_the_host_hears_nothing(gated: Gated, tmp_path: Path, case: Case) -> None:
    repo = case.lay_out(tmp_path / "repo")
    before = gated.heard()
    answer = gated.create(repo, "--json")
    assert answer.status == DENIED, answer
    assert answer.error["code"] == "denied"
    violations = answer.error["details"]["violations"]
    assert any(one["path"] == case.path and one["grant"] == case.grant for one in violations), violations
    for one in violations:
        assert set(one) == {"file", "line", "path", "gives_away", "grant"}
        assert one["line"] >= 1
        assert one["gives_away"]
    assert gated.heard() == before
    assert not gated.work_dir.exists()


def test_the_host_does_hear_of_a_harmless_one(gated: Gated, tmp_path: Path) -> None:
    """The check above can fail: with nothing to refuse, the same words reach the host (which has no engine)."""
    before = len(gated.heard())
    gated.create(hostile(tmp_path / "repo", "services: {a: {image: nginx}}\n"), "--json")
    assert len(gated.heard()) > before


def test_all_that_is_wrong_is_told_at_once_for_people_too_also_by_a_dry_run(gated: Gated, tmp_path: Path) -> None:
    compose = "services:\n  a:\n    image: nginx\n    privileged: true\n    volumes: ['/srv/x:/x']\n    pid: host\n"
    repo = hostile(tmp_path / "repo", compose)
    before = gated.heard()
    for more in ((), ("--dry-run",)):
        answer = gated.create(repo, *more)
        assert answer.status == DENIED
        for line in (
            "compose.yaml:4: services.a.privileged",
            "compose.yaml:5: services.a.volumes[0]",
            "compose.yaml:6:",
        ):
            assert line in answer.stderr
        for grant in ("grant: privileged\n", "grant: bind:/srv/x\n", "grant: pid:host\n"):
            assert grant in answer.stderr
    planned = gated.create(repo, "--dry-run", "--json")
    assert [one["path"] for one in planned.error["details"]["violations"]] == [
        "services.a.privileged", "services.a.volumes[0]", "services.a.pid",
    ]  # fmt: skip
    assert gated.heard() == before


def test_a_recreate_that_would_be_denied_destroys_nothing(gated: Gated, tmp_path: Path) -> None:
    """Also one that an earlier version made, before there was a gate: its volumes would be gone for nothing."""
    repo = hostile(tmp_path / "repo", "services: {a: {image: nginx}}\n")
    made = gated.create(repo, "--json")  # the host has no engine: it fails, and its record stays
    sandbox_id = made.error["sandbox_id"]
    hostile_now = "services: {a: {image: nginx, privileged: true}}\n"
    (repo / "compose.yaml").write_text(hostile_now)
    before = gated.heard()
    answer = gated.sandboxer("recreate", sandbox_id, "--json", seconds=120)
    assert (answer.status, answer.error["code"]) == (DENIED, "denied")
    assert answer.error["details"]["violations"][0]["path"] == "services.a.privileged"
    assert gated.sandboxer("get", sandbox_id, "--json").document["state"] == "failed"
    assert gated.heard() == before


def test_a_key_that_the_hosts_program_lacks_is_unsupported_before_anything_is_sent(
    gated: Gated, tmp_path: Path
) -> None:
    compose = "services: {a: {image: nginx, configs: [c]}}\nconfigs: {c: {file: ./c}}\n"
    repo = hostile(tmp_path / "repo", compose)
    (repo / "c").write_text("x")
    before = gated.heard()
    answer = gated.create(repo, "--json")
    assert (answer.status, answer.error["code"]) == (5, "unsupported")
    assert answer.error["details"]["unsupported"]
    assert gated.heard() == before


def test_only_the_operators_profile_grants_and_only_what_it_says(gated: Gated, tmp_path: Path) -> None:
    reads = hostile(tmp_path / "reads", "services: {a: {image: nginx, volumes: ['/etc:/x:ro']}}\n")
    writes = hostile(tmp_path / "writes", "services: {a: {image: nginx, volumes: ['/etc:/x']}}\n")
    own = "x-grants: ['bind:/etc']\nservices: {a: {image: nginx, volumes: ['/etc:/x']}}\n"
    for repo, profile, status in (
        (reads, "profile.granting", 0),
        (writes, "profile.granting", DENIED),
        (reads, "profile.compose-e2e", DENIED),
        (hostile(tmp_path / "own", own), "profile.compose-e2e", DENIED),
    ):
        assert gated.create(repo, "--dry-run", "--json", profile=profile).status == status


def test_a_grant_that_is_none_is_wrong_in_the_profile(gated: Gated, tmp_path: Path) -> None:
    file = tmp_path / "profile.bad.yaml"
    file.write_text(GRANTING.replace("profile.granting", "profile.bad").replace("bind:/etc:ro", "everything"))
    answer = gated.sandboxer("profiles", "validate", str(file), "--json")
    assert answer.status == 2
    assert "everything" in answer.error["message"]


def test_a_repository_without_a_compose_file_is_refused_here_and_nothing_is_recorded(
    gated: Gated, tmp_path: Path
) -> None:
    before = gated.heard()
    (tmp_path / "app").mkdir()
    for host in ("alpha", "no-daemon"):
        answer = gated.create(tmp_path / "app", "--json", host=host)
        assert answer.status == INVALID, answer
        assert "compose.yaml" in answer.error["message"]
        assert "sandbox_id" not in answer.error, "nothing to destroy"
    assert gated.heard() == before


def test_what_a_host_without_a_daemon_refused_can_be_destroyed_while_it_has_none(gated: Gated, tmp_path: Path) -> None:
    answer = gated.create(hostile(tmp_path / "app", 'services: {main: {image: "localhost/x:1"}}'), "--json",
                          host="no-daemon")  # fmt: skip
    assert answer.status == UNAVAILABLE, answer
    assert NO_DAEMON in answer.error["message"]
    assert answer.error["outcome"] == "failed"
    assert gated.sandboxer("destroy", answer.error["sandbox_id"]).status == 0
