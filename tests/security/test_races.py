"""Finding 3: while a directory is swapped with a link, again and again, no copy holds or reaches what is outside.

Here and over SSH; test_other_users.py runs them as an ordinary user."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from httpx import Client

from sandboxer.errors import SandboxerError
from tests.api.serving import called
from tests.installations import create, installed, lay_out
from tests.sizes import scaled
from tests.testbed.components import need
from tests.testbed.sshd import Sshd

INSIDE, OUTSIDE = "canary-inside", "canary-beyond"
SWAPPER = """
import ctypes, os, sys
victim, link, stop = map(os.fsencode, sys.argv[1:])
kernel, here, exchange = ctypes.CDLL(None, use_errno=True), -100, 2
print("swapping", flush=True)
while not os.path.exists(stop):
    for _ in "to and fro":
        if kernel.renameat2(here, victim, here, link, exchange):
            sys.exit(os.strerror(ctypes.get_errno()))
"""
DOCKER = """#!/bin/sh
case " $* " in *" up "*) ;; *) exit 0 ;; esac
{{ cat; find {work}/sbx-* -type f -name whose -exec cat {{}} +; }} >>{held}
exit 1
"""
"""An engine that keeps all that a stack would have had, and brings none up. A link that was sent as one is none of it:
what a stack may open through links is judged for itself."""
COMPOSE = "services: {a: {image: localhost/a, env_file: [below/env]}}\n"


@dataclass(frozen=True)
class Place:
    """An installation whose default host is here or over SSH, a tree below an allowed root, and one outside."""

    root: Path
    inside: Path
    outside: Path
    sshd: Sshd | None

    def configure(self, **more: str) -> None:
        """Write config.yaml; `more` is said of the host."""
        said = {"work_dir": str(self.root / "work"), **more}
        if self.sshd is not None:
            settings = self.sshd.settings()
            names = ("address", "user", "port", "identity", "known_hosts")
            said |= {name: str(getattr(settings, name)) for name in names}
        entry = ", ".join(f"{name}: {value}" for name, value in said.items())
        name = "local" if self.sshd is None else "remote"
        hosts = f"hosts: {{{name}: {{{entry}}}}}\ndefaults: {{host: {name}}}\n"
        lay_out(self.root, config=f"{hosts}api: {{allowed_roots: ['{self.root}/allowed']}}\n")

    def held(self) -> list[str]:
        """What every sandbox has of the tree's files."""
        return [file.read_text() for file in (self.root / "work").glob("sbx-*/workspace/**/whose")]

    def rounds(self) -> int:
        """How often something is raced: less over a connection, where each takes longer and so sees more swaps."""
        return scaled(20 if self.sshd is None else 5, soak=200)

    @contextmanager
    def swapped(self, below: str = ".") -> Iterator[None]:
        """Let another process swap the tree, or a directory below it, with a link to the same outside."""
        victim, target = self.inside / below, self.outside / below
        link, stop = self.root / "allowed" / "link", self.root / "stop"
        link.symlink_to(target)
        words = [sys.executable, "-c", SWAPPER, str(victim), str(link), str(stop)]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"swapping\n"
            try:
                yield
            finally:
                stop.touch()
                assert process.wait(60) == 0, "all is as it was"


@pytest.fixture(params=["here", "over ssh"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    inside, outside = tmp_path / "allowed" / "tree", tmp_path / "outside"
    for tree, text in ((inside, INSIDE), (outside, OUTSIDE)):
        (tree / "below").mkdir(parents=True)
        (tree / "compose.yaml").write_text(COMPOSE)
        for name in ("whose", "below/whose", "below/env"):
            (tree / name).write_text(f"WHOSE={text}")
    if request.param == "here":
        yield Place(tmp_path, inside, outside, None)
        return
    need("sshd")
    with Sshd(tmp_path / "sshd") as sshd:
        yield Place(tmp_path, inside, outside, sshd)


def asked(api: Client, place: Place, profile: str) -> int:
    """Ask for a sandbox of the tree, and take it away again; the status."""
    body = {"profile": profile, "ttl": "30m", "inputs": {"repo": str(place.inside)}}
    answer = api.post("/v1/sandboxes?wait=true", json=body, timeout=120)
    document = answer.json()
    sandbox_id = document.get("id") if answer.status_code == 201 else document.get("sandbox_id")
    HELD.extend(place.held())
    if sandbox_id is not None:
        assert api.delete(f"/v1/sandboxes/{sandbox_id}?wait=true", timeout=120).status_code == 200
    return answer.status_code


HELD: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_held() -> None:
    HELD.clear()


def test_creates_raced_by_a_swapper_never_hold_what_is_outside(place: Place) -> None:
    need("bwrap")
    place.configure()
    with called(installed(place.root)) as api, place.swapped():
        statuses = {asked(api, place, "profile.native") for _ in range(place.rounds())}
    assert f"WHOSE={OUTSIDE}" not in HELD
    assert statuses <= {201, 403, 422}


def test_a_directory_below_the_tree_raced_by_a_swapper_does_not_lead_out_either(place: Place) -> None:
    need("bwrap")
    place.configure()
    with called(installed(place.root)) as api, place.swapped("below"):
        statuses = {asked(api, place, "profile.native") for _ in range(place.rounds())}
    assert set(HELD) == {f"WHOSE={INSIDE}"}
    assert statuses == {201}


@pytest.mark.parametrize("below", [".", "below"])
def test_a_stack_raced_by_a_swapper_gets_neither_files_nor_values_from_outside(place: Place, below: str) -> None:
    """Also of what is read here: the compose file, and variables from the files that it names."""
    docker, held = place.root / "docker", place.root / "held"
    docker.write_text(DOCKER.format(work=place.root / "work", held=held))
    docker.chmod(0o755)
    place.configure(compose=f"{docker} compose")
    with called(installed(place.root)) as api, place.swapped(below):
        statuses = {asked(api, place, "profile.compose-e2e") for _ in range(place.rounds())}
    assert OUTSIDE not in (held.read_text() if held.exists() else "")
    assert 201 not in statuses, "the engine brings nothing up"
    held.unlink(missing_ok=True)
    with called(installed(place.root)) as api:
        asked(api, place, "profile.compose-e2e")
    assert held.read_text().count(INSIDE) == 3, "what is not swapped arrives: the check can fail"


def test_a_copy_in_raced_by_a_swapper_takes_nothing_from_beyond_the_tree(place: Place) -> None:
    need("bwrap")
    place.configure()
    here = installed(place.root)
    record = create(here, profile="profile.native")
    with place.swapped("below"):
        for number in range(place.rounds()):
            with suppress(SandboxerError):
                here.manager.copy(record.id, source=str(place.inside), target=f"copy{number}", inward=True)
    assert set(place.held()) == {f"WHOSE={INSIDE}"}
    here.manager.destroy(record.id)
    here.close()


def test_a_copy_out_raced_by_a_swapper_writes_nothing_beyond_the_target(place: Place) -> None:
    need("bwrap")
    place.configure()
    here = installed(place.root)
    record = create(here, profile="profile.native")
    fresh = place.root / "fresh" / "below"
    fresh.mkdir(parents=True)
    (fresh / "new").write_text("new")
    here.manager.copy(record.id, source=f"{fresh.parent}/.", target=".", inward=True)
    with place.swapped("below"):
        for _ in range(place.rounds()):
            with suppress(SandboxerError):
                here.manager.copy(record.id, source="below", target=str(place.inside), inward=False)
    assert sorted(path.name for path in (place.outside / "below").iterdir()) == ["env", "whose"]
    here.manager.destroy(record.id)
    here.close()
