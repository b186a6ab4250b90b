"""The extension contract (docs/extension-sdk.md). Subclass `SandboxExtension`; add a capability by also subclassing it.

Rules that the conformance suite checks on every extension:
- Any method must work in a new process, on another day, from the handle and the context alone.
- Everything made carries the labels of `spec.labels`, and is called `spec.resource`.
- `ctx.save(handle)` is called as soon as there is something to remember, before the slow part.
- A failure is an error of `sandboxer.errors`; `outcome="unknown"` when something may exist although we were not told.
- Nothing here reads settings, stores or the environment; secrets come resolved in the context and are never kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, ClassVar, Literal, Protocol, TypeVar

import msgspec

from sandboxer.errors import Conflict, Internal, Unsupported
from sandboxer.hosts.base import Host, Sink, Streams
from sandboxer.masking import masked
from sandboxer.models import Handle, Ready, Requirements, Resources, Written
from sandboxer.secrets import Secret
from sandboxer.timing import Deadline

PathKind = Literal["file", "directory", "absent"]
Presence = Literal["running", "stopped", "absent", "unknown"]
_Kept = TypeVar("_Kept")


class NoOptions(Written, frozen=True, kw_only=True):
    """The options model of an extension that has none."""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox to make, resolved: nothing in it has to be looked up.

    `resource` is its name on the backend (`sbx-<id>`); `labels` the four `sandboxer.*` labels and the extension's id;
    `expires_at` unix seconds or None; `options` an instance of the extension's `Options`, as `fit` left it.
    """

    sandbox_id: str
    resource: str
    profile: str
    labels: Mapping[str, str]
    inputs: Mapping[str, Any]
    options: Any
    expires_at: float | None = None


def _ignore(*_: object) -> None:
    """Progress or a handle that nobody wants."""


class KeptStreams(Protocol):
    """One snapshot's files as the core keeps them, for backends that keep none: byte streams by name."""

    def put(self, name: str) -> AbstractContextManager[Sink]:
        """A sink for a stream, which is whole when the block ends."""

    def get(self, name: str) -> BinaryIO:
        """A stream that was put, every byte proved. Raises NotFound; reading raises StoreCorrupt."""

    def inconsistent(self, why: str) -> None:
        """Say that the streams are not what there was at one moment."""

    def note(self, text: str) -> None:
        """Say what else whoever restores it should know, as what was left out."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What an extension may use: the host, the time it has, and ways to tell the core something.

    `host` is this machine for an extension that has no hosts. `secrets` and `endpoints` have the names of its manifest;
    an endpoint without an address is missing.

    `progress(phase, text)`: phases are resolve, sync, start, wait, ready. `save(handle)` makes the handle durable and
    raises Conflict when the sandbox is no longer wanted: let it pass, the core takes back what was made.

    `kept`: in `snapshot` and `restore_from_snapshot`, where the files of a backend go that keeps none by itself.
    """

    host: Host
    install: str
    deadline: Deadline
    progress: Callable[[str, str], None] = _ignore
    save: Callable[[Handle], None] = _ignore
    secrets: Mapping[str, Secret] = {}
    endpoints: Mapping[str, str] = {}
    kept: KeptStreams | None = None


def kept_streams(ctx: Context) -> KeptStreams:
    """Where the core keeps a snapshot's streams. Raises Internal outside of the verbs that have it."""
    if ctx.kept is None:
        raise Internal("a snapshot has no place for its streams")
    return ctx.kept


class Status(msgspec.Struct, frozen=True):
    """What the backend shows of one sandbox. Only a definite `absent` clears a record; a failed look is `unknown`.

    `ends_at`: when the backend ends it by itself (unix seconds), None where it does not, or does not tell. `billed`:
    what it bills for at present where that is less than the allotment, as of one that is stopped. `broken`: what is
    left of it, which `detail` tells, cannot be run again. `ended_itself`: it does not run, and nobody has stopped it
    (its host was restarted, its programs have ended): that is no state of the sandbox."""

    presence: Presence
    detail: str = ""
    ends_at: float | None = None
    billed: Resources | None = None
    broken: bool = False
    ended_itself: bool = False

    def __post_init__(self) -> None:
        # a backend's words, which may quote what it was given
        msgspec.structs.force_setattr(self, "detail", masked(self.detail))

    @property
    def is_stopped(self) -> bool:
        """Whether somebody has stopped it, so that it runs again only when it is started."""
        return self.presence == "stopped" and not self.ended_itself


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One labelled resource of this installation on a backend. `created_at` is unix seconds where it is known;
    `labels` are those it carries, so that a lost record can be written again."""

    sandbox_id: str
    handle: Handle
    labels: Mapping[str, str] = {}
    created_at: float | None = None
    expires_at: float | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "detail", masked(self.detail))


def from_handle(handle: Handle, kind: type[_Kept], *, version: int) -> _Kept:
    """What an adapter keeps in a handle, as its own type. Raises Conflict for what another version of it has written:
    nothing is guessed of a sandbox that costs money or holds files."""
    if handle.version == version:
        try:
            return msgspec.convert(handle.data, kind)
        except msgspec.ValidationError:
            why = "it is not what this version writes"  # the decoder's words may quote it
    else:
        why = f"its version is {handle.version}, and this one knows {version}"
    raise Conflict(
        f"what is remembered of it was written by another version of sandboxer: {why}",
        hint="upgrade sandboxer, or use the one that made it",
    )


class SandboxExtension(ABC):
    """A backend. Instances hold no state of a sandbox; they are made without arguments."""

    Options: ClassVar[type[Written]] = NoOptions
    """The model that a profile's `options` must fit."""

    @abstractmethod
    def check(self, ctx: Context) -> None:
        """Can it be used on this host with these secrets? Raises NotConfigured; the hint says what to install."""

    def fit(self, options: Any, require: Requirements) -> Any:
        """The options with which a sandbox meets `require`'s network and resources exactly; raises Unsupported, naming
        what cannot be met. Pure. (Capabilities, the isolation floor and prices are the core's to check.)"""
        for name in ("network", "vcpu", "memory_gib", "disk_gib", "gpu"):
            if getattr(require, name) is not None:
                raise Unsupported(
                    f"it cannot promise {name}: {getattr(require, name)}", hint="see docs/routing.md for what can"
                )
        return options

    def examine(self, spec: Spec, host: Host) -> None:  # noqa: B027 - most have nothing to look at
        """Look at what was asked as far as this machine alone can tell: raises Invalid, Denied or Unsupported for what
        must not reach a host. `host` is not connected, and is not to be; nothing is made. `provision` looks again."""

    @abstractmethod
    def provision(self, spec: Spec, ctx: Context) -> Handle:
        """Make it. Labels everything; saves the handle early; may leave rubble when it raises: the core then calls
        `teardown` with the last saved handle, or `find` and `teardown`."""

    @abstractmethod
    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        """Wait until it can be reached; how it is reached and isolated, as it really is. Raises BackendError when it
        came up wrong, Timeout when it did not come up."""

    @abstractmethod
    def status(self, handle: Handle, ctx: Context) -> Status:
        """running, stopped, absent or unknown. Never raises for "I could not look": that is `unknown`."""

    @abstractmethod
    def find(self, sandbox_id: str, ctx: Context) -> Handle | None:
        """A handle for whatever exists of this sandbox, also when only parts do; None only when it is certain that
        nothing does. Raises when it cannot know."""

    @abstractmethod
    def inventory(self, ctx: Context) -> Sequence[Found]:
        """What this extension made on this host for `ctx.install`: complete, or it raises."""

    @abstractmethod
    def teardown(self, handle: Handle, ctx: Context) -> None:
        """Free everything, each step independent of the others; what is gone already is success. Verifies absence;
        raises when anything is, or may be, left."""


class Exec(Written, frozen=True, kw_only=True):
    """A command inside the isolation boundary. `timeout` is in seconds; its passing kills the command's children."""

    argv: tuple[str, ...]
    service: str | None = None
    cwd: str | None = None
    env: dict[str, str] = {}
    tty: bool = False


class CanExec(ABC):
    """Runs commands inside the boundary."""

    @abstractmethod
    def exec(self, handle: Handle, request: Exec, streams: Streams, ctx: Context) -> int:
        """Run to the end; the command's own exit code (126 not executable, 127 not found, 128 + n by signal). stdout
        and stderr stay apart; our environment stays out. At `ctx.deadline` the command and its children are killed
        and Timeout is raised."""


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive of a path lacks: how many entries, and what was said of the first of them."""

    count: int
    said: tuple[str, ...] = ()


class CanCopy(ABC):
    """Moves files in and out as tar streams; the core gives them the meaning of `cp`."""

    def knows_holes(self, handle: Handle, ctx: Context, *, service: str | None = None) -> bool:
        """Whether `put_archive` understands files with holes (GNU's sparse 1.0); otherwise their zeros are sent."""
        return False

    @abstractmethod
    def path_kind(self, handle: Handle, path: str, ctx: Context, *, service: str | None = None) -> PathKind:
        """What is at `path` inside (relative paths start at the workspace)."""

    @abstractmethod
    def put_archive(
        self, handle: Handle, directory: str, archive: BinaryIO, ctx: Context, *, service: str | None = None
    ) -> None:
        """Unpack a tar stream into `directory`, which is made when missing. Cannot write outside the boundary."""

    @abstractmethod
    def get_archive(
        self, handle: Handle, path: str, sink: Callable[[bytes], None], ctx: Context, *, service: str | None = None
    ) -> LeftOut | None:
        """Send `path` as a tar stream whose single top entry is its last name. Raises NotFound when it is absent.
        The bytes come from inside the boundary: the core unpacks them as untrusted. What below it cannot be packed
        (unreadable files, sockets) is left out and told; None when there is nothing of the kind."""


class CanLogs(ABC):
    """Has logs of services."""

    @abstractmethod
    def logs(
        self, handle: Handle, streams: Streams, ctx: Context, *, service: str | None, follow: bool, tail: int | None
    ) -> None:
        """Write the logs to the streams. `tail` None is everything; `follow` goes on until interrupted."""


class CanRenew(ABC):
    """Keeps a copy of the expiry on the backend that has to be renewed with the record."""

    @abstractmethod
    def renew(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        """The sandbox now ends at `expires_at` (unix seconds, None never)."""


class CanMeter(ABC):
    """Has costs that can be known before and after. The core makes money of it, by the price table."""

    @abstractmethod
    def estimate_cost(self, options: Any) -> Resources:
        """What a sandbox with these options is allotted, and so billed for by the hour. Pure."""

    @abstractmethod
    def meter_actual(self, handle: Handle, ctx: Context) -> Resources | None:
        """The allotment as the backend shows it now; None when it does not show it. Asked before the teardown, with a
        short deadline; what it raises only means that the estimate stays."""


class CanShowUsage(ABC):
    """Runs processes that its host can see; `inspect host` shows what they use."""

    @abstractmethod
    def first_processes(self, handles: Sequence[Handle], ctx: Context) -> Sequence[Sequence[int]]:
        """For each sandbox on the host of `ctx` the first processes of its process namespaces, by the host's numbers;
        none where it does not run."""


class CanStop(ABC):
    """Stops a sandbox so that it costs less and keeps its files, and starts it again."""

    @abstractmethod
    def stop(self, handle: Handle, ctx: Context) -> None:
        """Stop it; one that is stopped already is success. `status` then says `stopped`."""

    @abstractmethod
    def start(self, handle: Handle, expires_at: float | None, ctx: Context) -> Ready | None:
        """Start it again, to end at `expires_at` (unix seconds); one that is running already is success. What it gives
        is how it is reached now, where that may be otherwise than before."""


class CanSnapshot(ABC):
    """Keeps a sandbox's files on the backend, or gives them to the core (`ctx.kept`), and makes new sandboxes of them.
    What the core keeps can be restored on another host, and when the first is gone."""

    @abstractmethod
    def snapshot(self, handle: Handle, name: str, ctx: Context) -> Handle:
        """Keep the files as they are now, called `name` (`snap-...`); a handle of its own that outlives the sandbox."""

    @abstractmethod
    def restore_from_snapshot(self, spec: Spec, snapshot: Handle, ctx: Context) -> Handle:
        """Make a new sandbox from a snapshot; the rules of `provision` hold."""

    def find_snapshot(self, name: str, ctx: Context) -> Handle | None:
        """The snapshot that a backend keeps under this name, where the answer to `snapshot` never came; None where
        there is none, and where it cannot be looked for. Called by `reconcile`, to delete it."""
        return None

    @abstractmethod
    def delete_snapshot(self, snapshot: Handle, ctx: Context) -> None:
        """Remove a snapshot; one that is gone already is success."""


CAPABILITIES: dict[str, type] = {
    "exec": CanExec,
    "copy": CanCopy,
    "logs": CanLogs,
    "renew": CanRenew,
    "meter": CanMeter,
    "usage": CanShowUsage,
    "stop": CanStop,
    "snapshot": CanSnapshot,
}


def capabilities(extension: type[SandboxExtension]) -> list[str]:
    """The names of what an extension class can do besides the life cycle; derived, so it cannot disagree."""
    return [name for name, base in CAPABILITIES.items() if issubclass(extension, base)]
