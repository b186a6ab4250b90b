"""What docker and podman have in common."""

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from . import firewall, image, interfaces, mounts, processes
from .components import SYSTEM_FOLDERS, missing
from .slots import PORTS, Slot

Resources = dict[str, set[str]]

permitted = True
"""Whether a test may start one now: tests/conftest.py allows it to those that are marked so."""


class Engine(ABC):
    """A running engine. `env` makes its programs use it; nothing of it is left after `close`.

    compose   the compose front ends that work with it, as the strings a user would configure
    root      its folder; every process, mount and container of it mentions that path somewhere
    net       all its containers' addresses are in here
    """

    kind: str
    program: str

    def __init__(self) -> None:
        if lacking := missing(["dockerd" if self.kind == "docker" else self.kind]):
            raise RuntimeError(f"missing: {', '.join(lacking)} (scripts/testbed/install)")
        if not permitted:
            raise RuntimeError("a test that starts an engine is marked `engines` (tests/conftest.py)")
        self._slot = Slot(self.kind)
        self.root, self.net = self._slot.root, self._slot.net
        self.bin = self.root / "bin"
        self.compose: tuple[str, ...] = ()
        # the programs of this engine come first, so that `docker-compose` is version 1 whatever the machine calls so
        self.env = {"PATH": os.pathsep.join([str(self.bin), *SYSTEM_FOLDERS])}
        try:
            if self.root.exists():  # of a run that was killed
                with suppress(subprocess.TimeoutExpired, OSError):
                    self._stop()
                self._clear()
            self.bin.mkdir(parents=True)
            self._start()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _start(self) -> None:
        """Write the settings, start what has to run, fill in `env` and `compose`."""

    @abstractmethod
    def _stop(self) -> None:
        """End in good order what `_start` has started, in this process or another; the rest is removed the hard way."""

    @abstractmethod
    def resources(self) -> Resources:
        """Names by kind: containers, pods, networks, volumes; the engine's own default networks excepted."""

    @abstractmethod
    def namespaces(self) -> set[str]:
        """Paths of the network namespaces of its containers."""

    def port(self, number: int) -> int:
        """A port of this machine that no other engine's tests publish, the first being 0."""
        assert 0 <= number < PORTS
        return self._slot.first_port + number

    @property
    def name(self) -> str:
        """Tells it from the other engines of this machine: "docker0"."""
        return f"{self.kind}{self._slot.number}"

    def interfaces(self) -> set[str]:
        """Bridges of its networks."""
        return set(interfaces.within(self.net))

    def images(self) -> set[str]:
        """Names of the images that have one."""
        found = lines(self.run(self.program, "images", "--format", "{{.Repository}}:{{.Tag}}"))
        return {name for name in found if "<none>" not in name}

    def run(
        self,
        *words: str,
        check: bool = True,
        timeout: float = 120,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program with this engine's environment: `run("docker", "ps")`."""
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self.env, **(env or {})},
            cwd=cwd,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def build_base(self, *tags: str) -> None:
        """Make the busybox image under the given full names ("localhost/sbx-base:1" by default)."""
        archive = self.root / "base.tar"
        image.write_base(archive, tags or (image.BASE,))
        try:
            self.run(self.program, "load", "-q", "-i", str(archive))
        finally:
            archive.unlink()

    def wipe(self) -> None:
        """Remove all containers, pods, networks and volumes; images stay. For after a test that has failed half-way."""
        found = self.resources()
        at_once = ("-t", "0") if self.kind == "podman" else ()  # docker's `rm -f` does not wait
        for kind, words in (
            ("containers", ("rm", "-f", "-v", *at_once)),
            ("pods", ("pod", "rm", "-f", *at_once)),
            ("networks", ("network", "rm")),
            ("volumes", ("volume", "rm", "-f")),
        ):
            if names := sorted(found.get(kind, ())):
                self.run(self.program, *words, *names)

    def close(self) -> None:
        """Stop it and remove all it made. Twice is once."""
        try:
            if self.bin.exists():
                self._stop()
        finally:
            self._clear()
            self._slot.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _clear(self) -> None:
        """Whatever still mentions this slot goes, from processes inwards."""
        mark = f"{self.root}/"
        processes.end(p for p in processes.everyone() if mark in p.command or mark in p.root_mount())
        mounts.detach(self.root)
        interfaces.delete(self.net)
        firewall.forget(self.net)
        for group in Path("/sys/fs/cgroup").glob(f"*/{self._cgroup()}"):
            for folder, _, _ in os.walk(group, topdown=False):
                Path(folder).rmdir()
        shutil.rmtree(self.root, ignore_errors=True)
        if self.root.exists():
            shutil.rmtree(self.root)

    def _cgroup(self) -> str:
        return f"testbed-{self.name}"

    def _link(self, name: str, program: str) -> str:
        path = self.bin / name
        path.symlink_to(program)
        return str(path)

    def _overlay_works(self) -> bool:
        """Overlay on overlay is refused: so it is where the test machine is a container itself."""
        trial = self.root / "overlay-trial"
        folders = [trial / name for name in ("lower", "upper", "work", "merged")]
        for folder in folders:
            folder.mkdir(parents=True)
        lower, upper, work, merged = folders
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        words = ["mount", "-t", "overlay", "-o", options, "overlay", str(merged)]
        done = subprocess.run(words, capture_output=True, check=False)
        if done.returncode == 0:
            subprocess.run(["umount", str(merged)], check=True)
        shutil.rmtree(trial)
        return done.returncode == 0


def lines(done: subprocess.CompletedProcess[str]) -> Sequence[str]:
    return done.stdout.split()
