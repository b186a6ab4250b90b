"""config.yaml."""

from __future__ import annotations

from typing import Any, Literal

from sandboxer.models.base import DurationText, Role, Written
from sandboxer.models.catalog import PriceTable, SecretRef


class HostSettings(Written, frozen=True, kw_only=True):
    """One placement host of config.yaml. Every key is optional; `address` None means the host's own name. `prices`:
    what sandboxes on this host are metered at (default: free)."""

    address: str | None = None
    user: str | None = None
    port: int | None = None
    identity: str | None = None
    certificate: str | None = None
    known_hosts: str | None = None
    host_key: str | None = None
    proxy_jump: str | None = None
    work_dir: str | None = None
    compose: str | None = None
    env: dict[str, str] = {}
    prices: PriceTable | None = None


class Defaults(Written, frozen=True, kw_only=True):
    """Values used where a request gives none."""

    profile: str = "profile.sandbox-canary"
    host: str | None = None
    ttl: DurationText | None = None
    actor: str | None = None


class HubSettings(Written, frozen=True, kw_only=True):
    """A neighbour's address and token; off when `url` is None."""

    url: str | None = None
    token: str | None = None

    def __repr__(self) -> str:
        return f"HubSettings(url={self.url!r})"


class TokenSettings(Written, frozen=True, kw_only=True):
    """A token for the HTTP API. `ref` is a secret reference (`env:` or `file:`); `consumer` (`agt:builder`) is whose
    sandboxes it is for, needed unless `role` is admin; no `profiles`: all; `budget` in US dollars; `expires` a time."""

    name: str
    ref: str
    role: Role
    consumer: str | None = None
    profiles: list[str] = []
    budget: str | None = None
    expires: str | None = None


class Quota(Written, frozen=True, kw_only=True):
    """What one consumer (`agt:builder`, or `*` for each that is not named) may have at once, and begin in a minute."""

    live: int | None = None
    creates_per_minute: int | None = None
    execs: int | None = None


class ApiSettings(Written, frozen=True, kw_only=True):
    """The HTTP shell. `token` is an admin's."""

    token: str | None = None
    host: str = "127.0.0.1"
    port: int = 8377
    allowed_roots: list[str] = []
    tokens: list[TokenSettings] = []

    def __repr__(self) -> str:
        return f"ApiSettings(host={self.host!r}, port={self.port})"


class ExtensionSettings(Written, frozen=True, kw_only=True):
    """What an operator says of one extension, over its manifest: other secret references, endpoints and options, a
    price table, narrower caps; `enabled: false` takes it out of every route."""

    enabled: bool = True
    secrets: dict[str, SecretRef] = {}
    endpoints: dict[str, str] = {}
    options: dict[str, Any] = {}
    prices: PriceTable | None = None
    max_ttl: DurationText | None = None
    max_live: int | None = None


class AppRole(Written, frozen=True, kw_only=True):
    """An OpenBao AppRole login: `secret_id` is a secret reference (`env:` or `file:`), `mount` the auth method's."""

    role_id: str
    secret_id: str
    mount: str = "approle"


class OpenBaoSettings(Written, frozen=True, kw_only=True):
    """Where `openbao:` references are read. `token` is a secret reference (`env:` or `file:`); or an AppRole."""

    address: str | None = None
    namespace: str | None = None
    token: str | None = None
    app_role: AppRole | None = None
    ca_file: str | None = None


class Budget(Written, frozen=True, kw_only=True):
    """What one consumer (`agt:builder`, or `*` for each that is not named) may spend and hold reserved, in US dollars:
    in all, or in each calendar month (UTC)."""

    usd: str
    per: Literal["month"] | None = None


class SnapshotSettings(Written, frozen=True, kw_only=True):
    """Where the files of snapshots are kept and how much of them. `store`: a directory (default: `snapshots` in the
    data directory); `max_bytes`: the most that each consumer's may take there, such as 20G; `keep`: how many of each
    sandbox, the oldest going first."""

    store: str | None = None
    max_bytes: int | str | None = None
    keep: int | None = None


class Settings(Written, frozen=True, kw_only=True):
    """config.yaml, with the environment laid over it."""

    hosts: dict[str, HostSettings] = {}
    defaults: Defaults = Defaults()
    extensions: dict[str, ExtensionSettings] = {}
    budgets: dict[str, Budget] = {}
    quotas: dict[str, Quota] = {}
    snapshots: SnapshotSettings = SnapshotSettings()
    openbao: OpenBaoSettings = OpenBaoSettings()
    state_hub: HubSettings = HubSettings()
    fin_hub: HubSettings = HubSettings()
    api: ApiSettings = ApiSettings()
