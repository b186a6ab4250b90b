"""What the tests of compose sandboxes share: a host, and sandboxes made, looked into and taken away on it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandboxer.extensions.base import Context, Exec, Spec
from sandboxer.extensions.compose_ssh import ComposeExtension
from sandboxer.extensions.compose_ssh.options import ComposeOptions
from sandboxer.hosts.base import Host, Streams
from sandboxer.models import Handle, HostSettings, Ready
from sandboxer.names import (
    LABEL_EXPIRES,
    LABEL_EXTENSION,
    LABEL_ID,
    LABEL_INSTALL,
    LABEL_PROFILE,
    new_id,
    resource_name,
)
from sandboxer.timing import Deadline
from tests.testbed.census import Census
from tests.testbed.engines import Engine

INSTALL = "composeinstall"
EXTENSION = ComposeExtension()


def spec(repo: Path, *, sandbox_id: str, compose_file: str | None = None, options: ComposeOptions) -> Spec:
    """A resolved request."""
    labels = {
        LABEL_ID: sandbox_id,
        LABEL_INSTALL: INSTALL,
        LABEL_EXPIRES: "2000000000",
        LABEL_PROFILE: "profile.compose-e2e",
        LABEL_EXTENSION: "ext.compose-ssh",
    }
    inputs: dict[str, Any] = {"repo": str(repo)}
    if compose_file is not None:
        inputs["compose_file"] = compose_file
    return Spec(
        sandbox_id=sandbox_id,
        resource=resource_name(sandbox_id),
        profile="profile.compose-e2e",
        labels=labels,
        inputs=inputs,
        options=options,
        expires_at=2000000000.0,
    )


@dataclass
class Bed:
    """A host with one front end. `connect` opens a fresh connection to it."""

    kind: str
    engine: Engine
    work_dir: Path
    connect: Callable[[], Host]
    settings: HostSettings
    _host: Host | None = field(default=None, repr=False)

    @property
    def host(self) -> Host:
        """One connection for all."""
        if self._host is None:
            self._host = self.connect()
        return self._host

    def close(self) -> None:
        """End the connection."""
        if self._host is not None:
            self._host.close()

    def context(self, *, seconds: float = 60, save: Callable[[Handle], None] = lambda _: None) -> Context:
        """What the core would give."""
        return Context(host=self.host, install=INSTALL, deadline=Deadline(seconds), save=save)

    def census(self) -> Census:
        """Everything in the engine, images too, all in the work directory, and the processes that mention it."""
        seen = Census.take(engines=[self.engine], marks=(str(self.work_dir),))
        words = [self.engine.program, "images", "--format", "image {{.Repository}}"]
        # an image that a compose file names itself stays, and so does what was under that name before: it is the
        # host's cache, like what was pulled
        cache = ("sbx-example", "<none>")
        images = {line for line in self.engine.run(*words).stdout.splitlines() if not any(c in line for c in cache)}
        folders = (self.work_dir, self.work_dir / ".sandboxer")
        entries = {f"entry {entry}" for folder in folders if folder.is_dir() for entry in folder.iterdir()}
        return Census(seen.found | images | entries)

    @contextmanager
    def nothing_left(self) -> Iterator[None]:
        """Fails when there is more behind it than there was before."""
        before = self.census()
        yield
        assert self.census() - before == []

    def provision(
        self,
        repo: Path,
        *,
        sandbox_id: str | None = None,
        save: Callable[[Handle], None] = lambda _: None,
        compose_file: str | None = None,
        **options: Any,
    ) -> Handle:
        """`provision` alone."""
        wanted = spec(
            repo,
            sandbox_id=sandbox_id or new_id(),
            compose_file=compose_file,
            options=ComposeOptions(**options),
        )
        return EXTENSION.provision(wanted, self.context(save=save))

    def wait(self, handle: Handle) -> Ready:
        """`wait_ready` alone."""
        return EXTENSION.wait_ready(handle, self.context())

    def teardown(self, handle: Handle) -> None:
        """`teardown`."""
        EXTENSION.teardown(handle, self.context())

    @contextmanager
    def sandbox(self, repo: Path, **more: Any) -> Iterator[tuple[Handle, Ready]]:
        """A ready sandbox, taken away again; also what is left of one that did not come up."""
        saved: list[Handle] = []
        try:
            handle = self.provision(repo, save=saved.append, **more)
            yield handle, self.wait(handle)
        finally:
            for one in saved:
                self.teardown(one)

    def run(
        self, handle: Handle, *words: str, stdin: bytes = b"", seconds: float = 30, **more: Any
    ) -> tuple[int, bytes, bytes]:
        """`exec`: exit code, stdout, stderr."""
        out, err = bytearray(), bytearray()
        streams = Streams(stdin=io.BytesIO(stdin), stdout=out.extend, stderr=err.extend)
        code = EXTENSION.exec(handle, Exec(argv=words, **more), streams, self.context(seconds=seconds))
        return code, bytes(out), bytes(err)

    def names(self, kind: str, handle: Handle) -> Sequence[str]:
        """Containers, networks, volumes of a sandbox, by name."""
        name = str(handle.data["name"])
        return sorted(found for found in self.engine.resources()[kind] if name in found)
