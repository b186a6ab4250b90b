"""Generated projects, made of the specification's keys and of none: what is sent has only keys that the table knows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandboxer.extensions.compose_ssh.loader import Origin, Project
from sandboxer.extensions.compose_ssh.policy import ComposeProgram
from sandboxer.extensions.compose_ssh.policy.key_table import Treatment
from sandboxer.extensions.compose_ssh.policy.keys_project import KEYS
from tests.extensions.compose.policy.corpora import CORPUS, DIRECTORY, Case, verdict_on
from tests.sizes import scaled

GROUPS: Final = {
    "": (
        "services",
        "networks",
        "volumes",
        "secrets",
        "configs",
        "models",
        "name",
        "version",
        "include",
        "x-a",
        "agents",
    ),
    "networks": (
        "name",
        "driver",
        "driver_opts",
        "ipam",
        "external",
        "internal",
        "attachable",
        "labels",
        "enable_ipv4",
    ),
    "volumes": ("name", "driver", "driver_opts", "external", "labels", "size"),
    "secrets": ("name", "file", "environment", "external", "labels", "driver", "template_driver", "x-podman.relabel"),
    "configs": ("name", "file", "content", "environment", "external", "labels", "template_driver"),
}
NEW: Final = (
    "teleport",
    "x-podman.rootfs",
    "rootfs",
    "init-path",
    "http_proxy",
    "publishall",
    "use_api_socket2",
    "$HOME",
)
NAMES: Final = sorted({part.removesuffix("[]") for key in KEYS for part in key.path.split(".")} - {"*"})
SERVICE: Final = sorted(
    {key.path.split(".")[2].removesuffix("[]") for key in KEYS if key.path.startswith("services.*.")}
)
WORDS: Final = (
    "host", "bridge", "tcp", "bind", "volume", "tmpfs", "v", "a", "b", "/etc", DIRECTORY, f"{DIRECTORY}/src", "/mnt",
    "8080", "1g", "10s", "true", "service:a", "container:x", "nginx", "sbx-x", "${HOME}", "always", "json-file",
    "local", "none", "", "CHOWN", "no-new-privileges:true", "a\nb", "\u202e", "-1", "0",
)  # fmt: skip


class Maker:
    """Makes documents from a seed: hypothesis draws the seed, as drawing each part would take thirty times as long."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose

    def some(self, options: Sequence[Any], most: int) -> list[Any]:
        """Up to `most` of the options, each once."""
        return self._random.sample(options, self._random.randint(0, min(most, len(options))))

    def scalar(self) -> Any:
        """A scalar of any kind."""
        numbers = (None, True, False, self._random.randint(-2, 70_000), 0.5, float("nan"), 10**30)
        return self._random.choice(self._random.choice((numbers, WORDS, WORDS)))

    def value(self, depth: int = 3) -> Any:
        """A value of any shape."""
        kind = self._random.random() if depth else 1.0
        if kind < 0.25:
            return [self.value(depth - 1) for _ in range(self._random.randint(0, 3))]
        if kind < 0.55:
            return {key: self.value(depth - 1) for key in self.some([*NAMES, *NEW], 3)}
        return self.scalar()

    def mount(self) -> dict[str, Any]:
        """A mount that is nearly right."""
        parts = {"source": self.scalar, "read_only": self.scalar, "bind": self.value, "volume": dict, "tmpfs": dict}
        kind = self._random.choice(("bind", "volume", "tmpfs"))
        return {"type": kind, "target": "/mnt"} | {key: parts[key]() for key in self.some(list(parts), 2)}

    def service(self) -> dict[str, Any]:
        """A service of which most parts often pass, with some that are anything."""
        parts: dict[str, Callable[[], Any]] = {
            "ports": lambda: [{"target": self._random.randint(1, 90), "published": "8080"}],
            "volumes": lambda: [self.mount() for _ in range(self._random.randint(0, 3))],
            "environment": lambda: {"A": self.scalar(), "B": "1"},
            "build": lambda: {"context": DIRECTORY, "args": {"A": "1"}},
            "networks": lambda: {"default": self._random.choice((None, {"aliases": ["x"]}, self.value()))},
            "depends_on": lambda: {"a": {"condition": "service_started", "required": True}},
            "deploy": lambda: {"replicas": 2, "resources": {"limits": {"memory": "64m"}}},
            "healthcheck": lambda: {"test": ["CMD", "true"], "interval": "5s"},
            "tmpfs": lambda: ["/tmp"],
            "cap_add": lambda: ["CHOWN"],
        }
        service = {"image": "nginx"} | {key: parts[key]() for key in self.some(list(parts), 4)}
        return service | {key: self.value() for key in self.some([*SERVICE, *NEW], self._random.choice((0, 0, 1, 3)))}

    def document(self) -> dict[str, Any]:
        """A document."""
        document: dict[str, Any] = {"services": {"a": self.service()}}
        document["services"] |= {name: self.service() for name in self.some(["b", "x-c", "d.e"], 2)}
        for section in self.some(list(GROUPS)[1:], 2):
            document[section] = {name: self._entry(section) for name in self.some(["v", "n", "default", "a"], 2)}
        anything = self.some([*GROUPS[""][5:], *NEW], self._random.choice((0, 0, 1)))
        return document | {key: self.value() for key in anything}

    def _entry(self, section: str) -> Any:
        if self._random.random() < 0.5:
            return {} if section in ("networks", "volumes") else {"file": f"{DIRECTORY}/src/a"}
        return {key: self.value() for key in self.some([*GROUPS[section], *NEW], 2)}


def walked(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all keys and items of a document, as they are: an own reading, not the gate's."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from walked(item, (*path, key))
    elif isinstance(value, list):
        for item in value:
            yield (*path, "[]")
            yield from walked(item, (*path, "[]"))


def known(path: tuple[str, ...]) -> bool:
    """Whether the table has a row for the path, for what holds it, or for what it is part of."""
    return any(_fits(path, row) for row in ROWS)


ROWS: Final = [
    tuple(key.path.replace("[]", ".[]").split("."))
    for key in KEYS
    if key.decision not in (Treatment.LEFT_OUT, Treatment.REFUSED)
]


def _fits(path: tuple[str, ...], row: tuple[str, ...]) -> bool:
    return all(part == "*" or part == here for part, here in zip(row, path, strict=False))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with what the generated files may name."""
    files = {"Dockerfile": "FROM alpine\n", "src/a": ""}
    return Case(name="", files=files, links={"out": "/etc"}).lay_out(tmp_path_factory.mktemp("repository"))


@pytest.mark.timeout(scaled(180, soak=3600))
@settings(max_examples=scaled(300, soak=20_000), deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(seed=st.integers(0, 2**64), program=st.sampled_from(ComposeProgram))
def test_no_key_that_the_table_does_not_know_is_sent(repository: Path, seed: int, program: ComposeProgram) -> None:
    document = Maker(seed).document()
    project = Project(name="x", document=document, origins={(): Origin("compose.yaml", 1)}, files=("compose.yaml",))
    verdict = verdict_on(project, repository, program=program)
    sent = set(walked(verdict.document))
    assert [path for path in sent if not known(path)] == []
    assert not sent or not verdict.violations
    if sent:
        text = json.dumps(verdict.document, default=str)
        assert "/etc" not in {
            mount.get("source") for one in verdict.document["services"].values() for mount in one.get("volumes", [])
        }
        assert "privileged" not in text


def test_generated_projects_both_pass_and_are_refused(repository: Path) -> None:
    passed = 0
    for seed in range(100):
        project = Project(name="x", document=Maker(seed).document(), origins={}, files=("compose.yaml",))
        passed += bool(verdict_on(project, repository).document)
    assert 10 <= passed <= 90


def test_the_walker_sees_a_planted_key() -> None:
    planted = {"services": {"a": {"image": "x", "privileged_2": True, "volumes": [{"bind": {"deep": 1}}]}}}
    strange = {path for path in walked(planted) if not known(path)}
    assert ("services", "a", "privileged_2") in strange
    assert ("services", "a", "volumes", "[]", "bind", "deep") in strange


def test_every_key_of_the_specification_is_in_the_table_or_refused_as_unknown() -> None:
    listed = {line for line in (CORPUS / "keys.txt").read_text().splitlines() if not line.startswith("#")}
    rows = [tuple(key.path.replace("[]", ".[]").split(".")) for key in KEYS]
    missing = {
        path for path in listed if not any(_fits(tuple(path.replace("[]", ".[]").split(".")), row) for row in rows)
    }
    assert missing == UNKNOWN


UNKNOWN: Final = {
    "networks.*.enable_ipv4",
    "services.*.networks.*.gw_priority",
    "services.*.networks.*.interface_name",
    "services.*.pull_refresh_after",
    "services.*.volumes[].bind.recursive",
    "services.*.volumes[].image",
    "services.*.volumes[].image.subpath",
    "services.*.volumes[].volume.subpath",
}
"""Newer than the programs that this was written with: refused until somebody looks."""
