"""The one place that wires real parts together."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sandboxer.config.catalog import shelves
from sandboxer.config.paths import Paths, find_paths
from sandboxer.config.settings import host_settings, load_settings, snapshot_files
from sandboxer.hosts.base import Host
from sandboxer.hosts.factory import open_host
from sandboxer.hosts.process.detach import detach
from sandboxer.locks import Leases, SandboxLock, SandboxLocks, Slots
from sandboxer.manager import SandboxManager, Services
from sandboxer.manager.establish.backend_health import HealthStore
from sandboxer.manager.sweeps.log import SweepLog
from sandboxer.models import HostSettings, Sandbox, Settings
from sandboxer.payments.credits import Credits
from sandboxer.registry import Registry
from sandboxer.store.audit_log import AuditLog
from sandboxer.store.create_rates import CreateRates
from sandboxer.store.json_store import JsonStore
from sandboxer.store.snapshot_records import SnapshotRecords
from sandboxer.store.tokens import TokenStore

if TYPE_CHECKING:
    from sandboxer.events.relay import Relays
    from sandboxer.manager.establish.plan import CreatePlan


Opener = Callable[[str, HostSettings | None], Host]


class HostPool:
    """Hosts by placement name, each opened once and kept until `close`."""

    def __init__(self, settings: Settings, environment: Mapping[str, str], opener: Opener) -> None:
        self._settings = settings
        self._environment = environment
        self._opener = opener
        self._hosts: dict[str, Host] = {}
        self._lock = threading.Lock()

    def open(self, name: str) -> Host:
        """The host with this placement name; it connects when it is first used."""
        with self._lock:
            host = self._hosts.get(name)
            if host is None:
                host = self._opener(name, host_settings(self._settings, name, self._environment))
                self._hosts[name] = host
            return host

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            for host in self._hosts.values():
                host.close()
            self._hosts.clear()


class Installation:
    """A wired sandboxer: the manager and what it stands on. `close` when done."""

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        environment: Mapping[str, str],
        store: JsonStore,
        *,
        opener: Opener,
        relay_in_background: bool,
    ) -> None:
        self.paths = paths
        self.settings = settings
        self.environment = environment
        self.store = store
        self.hosts = HostPool(settings, environment, opener)
        profiles, manifests = shelves(paths)
        self._relaying = relay_in_background and bool(settings.state_hub.url or settings.fin_hub.url)
        self.announced = threading.Event()
        self.on_announce: Callable[[], None] | None = None
        self.manager = SandboxManager(
            Services(
                store=store,
                locks=SandboxLocks(paths.data),
                leases=Leases(paths.data),
                settings=settings,
                profiles=profiles,
                extensions=Registry(manifests, settings.extensions),
                open_host=self.hosts.open,
                environment=environment,
                announce=self._announce,
                health=HealthStore(paths.data),
                tokens=TokenStore(paths.data, install=lambda: store.install_id),
                audit=AuditLog(paths.data),
                recent=CreateRates(paths.data),
                slots=Slots(paths.data),
                sweeps=SweepLog(paths.data),
                snapshots=SnapshotRecords(paths.data, install=lambda: store.install_id),
                snapshot_files=snapshot_files(settings, paths.data),
                credits=Credits(paths.data, settings.budgets, install=lambda: store.install_id),
            )
        )

    def _announce(self) -> None:
        self.announced.set()
        if self.on_announce is not None:  # a server relays in a thread of its own
            self.on_announce()

    def worker(self, *words: str) -> list[str]:
        """The words that start this program again for work in the background. Nothing is imported from the directory
        that it is started in (`-P`): a sandbox may write there."""
        return [sys.executable, "-P", "-m", "sandboxer", *words]

    def program(self, *words: str) -> list[str]:
        """The words by which another program starts this one, whatever its environment: they name our files."""
        return ["env", *(f"{name}={value}" for name, value in self._files().items()), *self.worker(*words)]

    def detach(self, words: Sequence[str], *, pass_fds: Sequence[int] = (), stdin: bytes = b"") -> int:
        """Start this program again, to outlive us, in the same environment; its process id."""
        return detach(self.worker(*words), env=self._elsewhere(), pass_fds=pass_fds, stdin=stdin)

    def _elsewhere(self) -> dict[str, str]:
        """Our environment for a program that starts in another directory: it finds the same files."""
        return {**self.environment, **self._files()}

    def _files(self) -> dict[str, str]:
        return {"SANDBOXER_DATA_DIR": str(self.paths.data), "SANDBOXER_CONFIG_DIR": str(self.paths.config)}

    def create_detached(self, plan: CreatePlan) -> Sandbox:
        """Begin, and hand the rest to a process that owns it from now on; the record in `provisioning`."""
        from sandboxer.manager.establish.create import hand_over

        begun = self.manager.begin(plan)
        if isinstance(begun, Sandbox):
            return begun

        def start(lock_fd: int) -> None:
            words = ["_work", begun.record.id, "--lock-fd", str(lock_fd)]
            self.detach(words, pass_fds=[lock_fd], stdin=msgspec.json.encode(plan))

        return hand_over(self.manager.services, begun, start)

    def carry_out_begun(self, sandbox_id: str, lock_fd: int, plan: bytes) -> Sandbox:
        """The other half of `create_detached`, in the process that owns it."""
        from sandboxer.manager.establish.create import PendingCreate
        from sandboxer.manager.establish.plan import CreatePlan

        begun = PendingCreate(self.manager.services.current(sandbox_id), SandboxLock.adopt(lock_fd))
        return self.manager.carry_out(msgspec.json.decode(plan, type=CreatePlan), begun)

    def relays(self) -> Relays:
        """The relays to the State Hub and to fin-hub, as far as they have an address; raises NotConfigured when neither
        has, Invalid for an address that cannot be used."""
        from sandboxer.events.relay import Relay, Relays  # most commands send nothing themselves
        from sandboxer.events.sink import fin_hub

        found = []
        if self.settings.state_hub.url or not self.settings.fin_hub.url:
            found.append(Relay(self.store, self.settings.state_hub, self.paths.data))
        if self.settings.fin_hub.url:
            found.append(Relay(self.store, self.settings.fin_hub, self.paths.data, sink=fin_hub))
        return Relays(found)

    def close(self) -> None:
        """End connections; start the relay of events when something was announced."""
        self.hosts.close()
        if self._relaying and self.announced.is_set():
            from sandboxer.events import start_relay_process

            self.announced.clear()
            start_relay_process(
                self.store,
                self.settings.state_hub,
                self.paths.data,
                self.worker("_relay"),
                fin_hub=self.settings.fin_hub,
                env=self._elsewhere(),
            )


def install(
    environment: Mapping[str, str] | None = None,
    *,
    relay_in_background: bool = True,
    opener: Opener = open_host,
    store: Callable[[Path], JsonStore] = JsonStore,
) -> Installation:
    """Everything, from the environment and config.yaml. Raises Invalid, StoreCorrupt.

    `opener` and `store` make the two things that touch the world; programs that embed sandboxer may give their own."""
    found = dict(os.environ if environment is None else environment)
    paths = find_paths(found)
    settings = load_settings(paths.config, found)
    _check_sinks(settings)
    return Installation(
        paths, settings, found, store(paths.data), opener=opener, relay_in_background=relay_in_background
    )


def _check_sinks(settings: Settings) -> None:
    """Raise Invalid for an address or a token with which no event could be sent: whoever has mistyped it is told by the
    next command, not by the one that sends."""
    if not settings.state_hub.url and not settings.fin_hub.url:
        return
    from sandboxer.events import sink  # most have no hub

    if settings.state_hub.url:
        sink.state_hub(settings.state_hub)
    if settings.fin_hub.url:
        sink.fin_hub(settings.fin_hub)
