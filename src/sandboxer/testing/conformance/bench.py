"""What a suite works with: a backend to try, and one ready sandbox on it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar

import msgspec
import pytest

from sandboxer.errors import NotFound
from sandboxer.extensions.base import CanExec, Context, Exec, KeptStreams, SandboxExtension, Spec
from sandboxer.hosts.base import Host, Sink, Streams
from sandboxer.models import Handle, Ready, Requirements
from sandboxer.names import (
    LABEL_EXPIRES,
    LABEL_EXTENSION,
    LABEL_ID,
    LABEL_INSTALL,
    LABEL_PROFILE,
    new_id,
    resource_name,
)
from sandboxer.secrets import Secret
from sandboxer.timing import Deadline

INSTALL = "conformanceinst"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a suite works with.

    `extension` makes a fresh instance; `hosts` a fresh connection to the host. `inputs` and `options` make a valid
    sandbox with a POSIX shell inside; `broken` are inputs or options (as "inputs"/"options") with which provision or
    wait_ready fails. `census` names everything of ours on the backend. `seconds` bounds each step. `secrets` and
    `endpoints` are what the context has by those names. `met` are requirements that the backend can meet, each with a
    command that proves it from inside (empty: nothing to run); `unmet` those that it must refuse. `counts_snapshots`
    tells whether the census shows them too."""

    extension: Callable[[], SandboxExtension]
    extension_id: str
    hosts: Callable[[], Host]
    census: Callable[[], Sequence[str]]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    broken: Mapping[str, Mapping[str, Any]] | None = None
    seconds: float = 60.0
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    endpoints: Mapping[str, str] = field(default_factory=dict)
    met: Sequence[tuple[Requirements, Sequence[str]]] = ()
    unmet: Sequence[Requirements] = ()
    counts_snapshots: bool = True
    progress: Callable[[str, str], None] = field(default=lambda _phase, _text: None)

    def spec(
        self,
        sandbox_id: str,
        *,
        broken: bool = False,
        install: str = INSTALL,
        require: Requirements | None = None,
    ) -> Spec:
        """A resolved spec for a new sandbox; its options are fitted to `require`."""
        wrong = dict(self.broken or {}) if broken else {}
        extension = self.extension()
        options = msgspec.convert({**self.options, **wrong.get("options", {})}, extension.Options)
        expires = time.time() + 3600
        return Spec(
            sandbox_id=sandbox_id,
            resource=resource_name(sandbox_id),
            profile="profile.conformance",
            labels={
                LABEL_ID: sandbox_id,
                LABEL_INSTALL: install,
                LABEL_EXPIRES: str(int(expires)),
                LABEL_PROFILE: "profile.conformance",
                LABEL_EXTENSION: self.extension_id,
            },
            inputs={**self.inputs, **wrong.get("inputs", {})},
            options=options if require is None else extension.fit(options, require),
            expires_at=expires,
        )

    def context(
        self,
        host: Host,
        *,
        save: Callable[[Handle], None] = lambda _handle: None,
        seconds: float | None = None,
        install: str = INSTALL,
        kept: KeptStreams | None = None,
    ) -> Context:
        """A context with a deadline."""
        deadline = Deadline(self.seconds if seconds is None else seconds)
        return Context(
            host=host,
            install=install,
            deadline=deadline,
            progress=self.progress,
            save=save,
            secrets=self.secrets,
            endpoints=self.endpoints,
            kept=kept,
        )


class StreamsInMemory:
    """Keeps a snapshot's streams as the core does, as long as the test goes on."""

    def __init__(self) -> None:
        self.streams: dict[str, bytes] = {}
        self.said: list[str] = []

    @contextmanager
    def put(self, name: str) -> Iterator[Sink]:
        """A sink."""
        data = bytearray()
        yield data.extend
        self.streams[name] = bytes(data)

    def get(self, name: str) -> BinaryIO:
        """A stream that was put."""
        if name not in self.streams:
            raise NotFound(f"there is no stream {name!r}", hint="put it first")
        return io.BufferedReader(io.BytesIO(self.streams[name]))  # no BytesIO: as a store's

    def inconsistent(self, why: str) -> None:
        """Remember what was said."""
        self.said.append(why)

    def note(self, text: str) -> None:
        """Remember what was said."""
        self.said.append(text)


@dataclass(frozen=True, kw_only=True)
class Made:
    """One ready sandbox of a suite."""

    bench: Bench
    host: Host
    sandbox_id: str
    handle: Handle
    ready: Ready

    def run(
        self, *argv: str, stdin: bytes = b"", seconds: float | None = None, **more: Any
    ) -> tuple[int, bytes, bytes]:
        """Run a command inside: exit code, stdout, stderr."""
        extension = self.bench.extension()
        assert isinstance(extension, CanExec)
        out, err = bytearray(), bytearray()
        streams = Streams(stdin=io.BytesIO(stdin), stdout=out.extend, stderr=err.extend)
        context = self.bench.context(self.host, seconds=seconds)
        code = extension.exec(self.handle, Exec(argv=argv, **more), streams, context)
        return code, bytes(out), bytes(err)


def make(bench: Bench, host: Host, sandbox_id: str | None = None) -> Made:
    """Provision a sandbox and wait until it is ready."""
    name = sandbox_id or new_id()
    extension = bench.extension()
    handle = extension.provision(bench.spec(name), bench.context(host))
    ready = extension.wait_ready(handle, bench.context(host))
    return Made(bench=bench, host=host, sandbox_id=name, handle=handle, ready=ready)


def remove(bench: Bench, host: Host, sandbox_id: str) -> None:
    """Find and tear down, as `reconcile` does."""
    extension = bench.extension()
    handle = extension.find(sandbox_id, bench.context(host))
    if handle is not None:
        extension.teardown(handle, bench.context(host))


class Conformance:
    """What all parts of the suite share: a host, and one ready sandbox for a class of tests."""

    deviations: ClassVar[Mapping[str, str]] = {}
    """Test name -> reason: what this extension does otherwise, on purpose."""

    @pytest.fixture(autouse=True)
    def _deviation(self, request: pytest.FixtureRequest) -> None:
        reason = self.deviations.get(request.node.originalname)
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.fixture(scope="class")
    @classmethod
    def host(cls, bench: Bench) -> Iterator[Host]:
        host = bench.hosts()
        yield host
        host.close()

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, bench: Bench, host: Host) -> Iterator[Made]:
        sandbox = make(bench, host)
        yield sandbox
        remove(bench, host, sandbox.sandbox_id)
