"""What the tests of native sandboxes share: a host, and sandboxes made, looked into and taken away on it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sandboxer.extensions.base import Context, Exec, Spec
from sandboxer.extensions.native import NativeExtension
from sandboxer.extensions.native.handle import SandboxPaths
from sandboxer.extensions.native.options import NativeOptions
from sandboxer.hosts.base import Host, Streams
from sandboxer.hosts.local import LocalHost
from sandboxer.models import Handle, HostSettings, Ready
from sandboxer.names import LABEL_EXPIRES, LABEL_EXTENSION, LABEL_ID, LABEL_INSTALL, LABEL_PROFILE, new_id
from sandboxer.timing import Deadline
from tests.testbed.census import Census

INSTALL = "nativeinstall"
EXTENSION = NativeExtension()


@dataclass
class Box:
    """One sandbox."""

    bench: Bench
    sandbox_id: str
    handle: Handle
    ready: Ready | None = None
    install: str = INSTALL

    @property
    def paths(self) -> SandboxPaths:
        """Its names and paths."""
        return SandboxPaths(str(self.bench.work), self.sandbox_id, self.install)

    @property
    def directory(self) -> Path:
        """Its directory on the host."""
        return Path(self.paths.directory)

    def run(
        self, *argv: str, stdin: bytes = b"", seconds: float = 30, cwd: str | None = None, tty: bool = False, **env: str
    ) -> tuple[int, bytes, bytes]:
        """Run a command inside: exit code, stdout, stderr."""
        out, err = bytearray(), bytearray()
        streams = Streams(stdin=io.BytesIO(stdin), stdout=out.extend, stderr=err.extend)
        request = Exec(argv=argv, env=env, cwd=cwd, tty=tty)
        code = EXTENSION.exec(self.handle, request, streams, self.bench.context(seconds=seconds))
        return code, bytes(out), bytes(err)

    def sh(self, script: str, *words: str, seconds: float = 30) -> str:
        """What a shell script inside says; it must succeed."""
        code, out, err = self.run("sh", "-c", script, "sh", *words, seconds=seconds)
        assert code == 0, (code, out, err)
        return out.decode().rstrip("\n")

    def presence(self) -> str:
        """What `status` says."""
        return EXTENSION.status(self.handle, self.bench.context()).presence

    def recorded(self) -> dict[str, int]:
        """The recorded processes on the host: monitor, child, up."""
        lines = (self.directory / "run/holder").read_text().splitlines()
        return {line.split()[0]: int(line.split()[1]) for line in lines}

    def remove(self) -> None:
        """Tear it down."""
        EXTENSION.teardown(self.handle, self.bench.context())


@dataclass
class Bench:
    """A host with a work directory."""

    work: Path
    host: Host
    install: str = INSTALL
    saved: list[Handle] = field(default_factory=list)

    def context(self, *, seconds: float = 30) -> Context:
        """A context with a deadline; handles are kept in `saved`."""
        return Context(host=self.host, install=self.install, deadline=Deadline(seconds), save=self.saved.append)

    def spec(self, sandbox_id: str, *, repo: Path | None = None, **options: Any) -> Spec:
        """A resolved request."""
        labels = {
            LABEL_ID: sandbox_id,
            LABEL_INSTALL: self.install,
            LABEL_EXPIRES: "2000000000",
            LABEL_PROFILE: "profile.native",
            LABEL_EXTENSION: "ext.native",
        }
        return Spec(
            sandbox_id=sandbox_id,
            resource=f"sbx-{sandbox_id}",
            profile="profile.native",
            labels=labels,
            inputs={} if repo is None else {"repo": str(repo)},
            options=msgspec.convert(options, NativeOptions),
            expires_at=2000000000.0,
        )

    @contextmanager
    def box(self, *, wait: bool = True, repo: Path | None = None, **options: Any) -> Iterator[Box]:
        """A ready sandbox, which is gone afterwards, with all that belonged to it."""
        sandbox_id = new_id()
        try:
            handle = EXTENSION.provision(self.spec(sandbox_id, repo=repo, **options), self.context())
            box = Box(self, sandbox_id, handle)
            if wait:
                box.ready = EXTENSION.wait_ready(handle, self.context())
            yield box
        finally:
            self.remove(sandbox_id)

    def remove(self, sandbox_id: str) -> None:
        """Find it and tear it down; nothing of it is left."""
        found = EXTENSION.find(sandbox_id, self.context())
        if found is not None:
            EXTENSION.teardown(found, self.context())
        assert EXTENSION.find(sandbox_id, self.context()) is None
        assert self.census(sandbox_id) == []

    def census(self, sandbox_id: str) -> list[str]:
        """Everything on the machine that names the sandbox."""
        found = Census.take(dirs=[self.work], marks=[f"sbx-{sandbox_id}"]).found
        return sorted(line for line in found if sandbox_id in line)


def over(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped yet is over too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0] in "ZX"
    except OSError:
        return True


def local_bench(work: Path) -> Bench:
    """On this machine."""
    return Bench(work, LocalHost("local", HostSettings(work_dir=str(work))))
