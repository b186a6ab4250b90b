"""One engine of each kind for all tests here, and hosts on it: over a real sshd, or as this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from sandboxer.hosts.base import Host
from sandboxer.hosts.factory import open_host
from sandboxer.hosts.local import LocalHost
from sandboxer.models import HostSettings
from tests.extensions.compose.sandboxes import Bed
from tests.testbed.engines import Docker, Engine, Podman
from tests.testbed.hosts import KINDS, ComposeHost, Kind, need_kind


@pytest.fixture(scope="session")
def engines() -> Iterator[Callable[[Kind], Engine]]:
    """Engines by front end, started when first wanted."""
    started: dict[type[Engine], Engine] = {}

    def engine(kind: Kind) -> Engine:
        need_kind(kind)
        cls = Podman if kind == "podman-compose" else Docker
        if cls not in started:
            started[cls] = cls()
            started[cls].build_base()
        return started[cls]

    yield engine
    for one in started.values():
        one.close()


@pytest.fixture(scope="session")
def beds(
    engines: Callable[[Kind], Engine], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Kind], Bed]]:
    """A host over SSH for each front end."""
    made: dict[Kind, tuple[Bed, ComposeHost]] = {}

    def bed(kind: Kind) -> Bed:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind.replace(" ", "-"))
            there = ComposeHost(folder, kind, engines(kind))
            settings = msgspec.convert({**there.config, "compose": there.compose}, HostSettings)

            def connect() -> Host:
                return open_host(there.name, settings)

            made[kind] = (
                Bed(kind=kind, engine=there.engine, work_dir=there.work_dir, connect=connect, settings=settings),
                there,
            )
        return made[kind][0]

    yield bed
    for one, there in made.values():
        one.close()
        there.close()


@pytest.fixture(params=KINDS, scope="session")
def bed(request: pytest.FixtureRequest, beds: Callable[[Kind], Bed]) -> Bed:
    """A host over SSH, with each front end in turn."""
    return beds(request.param)


@pytest.fixture(params=["docker compose", "podman-compose"], scope="session")
def either(request: pytest.FixtureRequest, beds: Callable[[Kind], Bed]) -> Bed:
    """A host over SSH with each engine in turn, for what depends on the engine and not on the front end."""
    return beds(request.param)


@pytest.fixture(scope="session")
def podman(beds: Callable[[Kind], Bed]) -> Bed:
    """The host over SSH with podman-compose, for what does not depend on the front end."""
    return beds("podman-compose")


@pytest.fixture(scope="session")
def docker(beds: Callable[[Kind], Bed]) -> Bed:
    """The host over SSH with docker compose."""
    return beds("docker compose")


@pytest.fixture(scope="session")
def here(engines: Callable[[Kind], Engine], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """This machine, with podman-compose."""
    engine = engines("podman-compose")
    work_dir: Path = tmp_path_factory.mktemp("here")
    settings = HostSettings(work_dir=str(work_dir), compose=engine.compose[0], env=dict(engine.env))
    bed = Bed(
        kind="podman-compose",
        engine=engine,
        work_dir=work_dir,
        connect=lambda: LocalHost("local", settings),
        settings=settings,
    )
    yield bed
    bed.close()
