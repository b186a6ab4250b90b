"""Hold the state of a running server: the manager, the pools of workers, and the relay of events."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandboxer.api.workers import Slot, WorkerPool
from sandboxer.errors import Denied, SandboxerError
from sandboxer.manager.access import Principal
from sandboxer.manager.tokens import TokenVerifier
from sandboxer.masking import masked
from sandboxer.models import Sandbox, Settings
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    from sandboxer.api.expiry_watch import ExpiryWatch
    from sandboxer.bootstrap import Installation
    from sandboxer.events.relay_loop import RelayLoop
    from sandboxer.manager import SandboxManager
    from sandboxer.manager.establish.plan import CreatePlan

DEFAULT_ACTOR: Final = "agt:api"
"""Who asked, when neither the request nor the configuration says."""
STOP_SECONDS: Final = 5.0
"""How long running establishments and teardowns may go on after the server was told to stop."""
LOCAL: Final = "local"


@dataclass(frozen=True, slots=True)
class StartedCreate:
    """An establishment that was asked for. `work` is None for one that an idempotency key gave before."""

    record: Sandbox
    work: Future[Sandbox] | None


@dataclass(frozen=True)
class StartedReplacement:
    """An establishment in the place of a sandbox, and the removal of that, which it waits for."""

    removal: Future[Sandbox]
    create: StartedCreate


class ServerContext:
    """One running API. The installation is opened on first use; importing the application reads no configuration."""

    def __init__(self, opening: Callable[[], Installation], keyring: TokenVerifier | None = None) -> None:
        self._opening = opening
        self._installation: Installation | None = None
        self._keyring = keyring
        self._opening_lock = threading.Lock()
        self._removals_lock = threading.Lock()
        self._relays: list[RelayLoop] = []
        self._watch: ExpiryWatch | None = None
        self._removals: dict[str, Future[Sandbox]] = {}
        self._stopping: Deadline | None = None
        self._hurried = False
        # Establishing is mostly waiting for programs and disks: more threads than cores, but not so many that fifty
        # creates at once all time out together. A create may take a quarter of an hour: none has them all.
        self.creates = WorkerPool("creates", threads=12, waiting=500, each=9, share=384)
        self.destroys = WorkerPool("removals", threads=8, waiting=500, each=6)
        # one look at, or write of, the store; callers in turn, so that who asks much waits for itself
        self.lookups = WorkerPool("requests", threads=16, waiting=1000, each=12, share=762)
        # exec: up to an hour each, so that a caller must never have all threads
        self.commands = WorkerPool("commands", threads=64, waiting=192, each=16, share=64)
        # sweeps, renewals, telemetry: a minute each, where a host is slow
        self.host_calls = WorkerPool("calls to hosts", threads=8, waiting=200, each=4, share=104)

    @property
    def installation(self) -> Installation:
        """The wired parts; raises Invalid or StoreCorrupt when the configuration is wrong."""
        with self._opening_lock:
            return self._open()

    def _open(self) -> Installation:
        if self._installation is None:
            self._installation = self._opening()
        return self._installation

    @property
    def manager(self) -> SandboxManager:
        """The verbs, for what goes on behind the requests: those who asked were noted when they did."""
        return self.installation.manager.acting(Principal(silent=True))

    @property
    def keyring(self) -> TokenVerifier:
        """The tokens it takes; raises what keeps a configured one from being read."""
        with self._opening_lock:
            if self._keyring is None:
                self._keyring = TokenVerifier(self._open().manager.services)
            return self._keyring

    @property
    def settings(self) -> Settings:
        """config.yaml with the environment over it, as read at the start."""
        return self.installation.settings

    @property
    def roots(self) -> list[Path]:
        """The directories that path inputs may lie below."""
        return [Path(root).expanduser() for root in self.settings.api.allowed_roots]

    def check_host(self, host: str | None) -> str | None:
        """A host that a caller may name; raises Denied. Any other name would let a caller make this machine open
        connections to addresses of its choice."""
        if host is None or host == LOCAL or host in self.settings.hosts:
            return host
        raise Denied(
            f"host {host[:80]!r} is not configured",
            hint="over HTTP only `local` and the hosts of the server's config.yaml can be named",
        )

    def start(self) -> None:
        """Open the installation, and relay events to the State Hub and to fin-hub, where there is one, as they
        happen; tell of sandboxes that are about to end."""
        installation = self.installation
        installation.manager.prepare()  # before there are threads that read
        _ = self.keyring.closed  # a token that cannot be read keeps everybody out, so it is told now
        if installation.settings.state_hub.url is not None or installation.settings.fin_hub.url is not None:
            from sandboxer.events.relay_loop import RelayLoop

            self._relays = [RelayLoop(relay, alarm=_alarm) for relay in installation.relays().each]
            installation.on_announce = self._wake
            for relay in self._relays:
                relay.start()
        from sandboxer.api.expiry_watch import ExpiryWatch

        self._watch = ExpiryWatch(installation.manager.services, alarm=_alarm)
        self._watch.start()

    def _wake(self) -> None:
        for relay in self._relays:
            relay.wake()

    def stop(self, deadline: Deadline) -> int:
        """Take no more work, and let what runs end until the deadline; how many jobs did not."""
        self._stopping = deadline
        if self._hurried:  # asked a second time before we came to this
            deadline.cancel()
        pools = (self.lookups, self.host_calls, self.creates, self.destroys, self.commands)
        left = sum(pool.close(deadline) for pool in pools)
        if left:
            _alarm(f"{left} pieces of work were cut off; run `sandboxer reconcile --apply`")
        if self._watch is not None:
            self._watch.stop()
        for relay in self._relays:
            relay.stop()
        if self._installation is not None and not left:
            self._installation.close()  # under what still works, connections end with the process, not before
        return left

    def hurry(self) -> None:
        """Wait no longer for what still runs: the operator has asked a second time."""
        self._hurried = True
        if self._stopping is not None:
            self._stopping.cancel()

    # -- work that outlives its request ---------------------------------------------------------------------------

    def establish(self, plan: CreatePlan, slot: Slot, *, by: SandboxManager) -> StartedCreate:
        """Record the intent as `by` whom it was asked for, and let a worker carry it out, as theirs too. Blocks for one
        write of the store."""
        begun = by.begin(plan)
        if isinstance(begun, Sandbox):
            return StartedCreate(begun, None)
        work = slot.submit(partial(by.carry_out, plan, begun))
        work.add_done_callback(report_bug)
        return StartedCreate(begun.record, work)

    def replace(self, plan: CreatePlan, slot: Slot, *, by: SandboxManager, caller: str = "") -> StartedReplacement:
        """Record the intent as `by` whom it was asked for, and that the sandbox which it replaces shall go; workers
        take that away, then carry it out. Blocks for two writes of the store."""
        begun = by.begin_replacement(plan)
        try:
            removal = self.remove(str(plan.replaces), caller=caller)
            work = slot.submit(partial(by.replace, plan, begun, removal.result))
        except BaseException as error:
            by.replace(plan, begun, partial(_raise, error))  # gives it up, and raises that
            raise
        work.add_done_callback(report_bug)
        return StartedReplacement(removal, StartedCreate(begun.record, work))

    def remove(self, sandbox_id: str, *, caller: str = "") -> Future[Sandbox]:
        """Let a worker take a sandbox away; asking again joins the teardown that is under way."""
        with self._removals_lock:
            known = self._removals.get(sandbox_id)
            if known is not None:
                return known
            work = self.destroys.submit(partial(self.manager.destroy, sandbox_id), caller)
            self._removals[sandbox_id] = work
        work.add_done_callback(lambda _: self._forget(sandbox_id))
        work.add_done_callback(report_bug)
        return work

    def _forget(self, sandbox_id: str) -> None:
        with self._removals_lock:
            self._removals.pop(sandbox_id, None)


def _raise(error: BaseException) -> None:
    raise error


def _alarm(text: str) -> None:
    sys.stderr.write(f"sandboxer: {text}\n")
    sys.stderr.flush()


def report_bug(work: Future[Sandbox]) -> None:
    """Tell the operator of an error that no request waits for. Expected ones are in the sandbox's record."""
    error = None if work.cancelled() else work.exception()
    if error is not None and not isinstance(error, SandboxerError):
        log_bug(error)


def log_bug(error: BaseException) -> None:
    """The traceback of a bug, for the operator alone."""
    sys.stderr.write("sandboxer: a bug; please report it\n" + masked("".join(traceback.format_exception(error))))
    sys.stderr.flush()
