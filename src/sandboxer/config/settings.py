"""config.yaml with the environment laid over it. Precedence: flag, environment, config.yaml, default (contract §2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from sandboxer.config.catalog import EXTENSION_ID
from sandboxer.config.prices import check_amount, check_prices
from sandboxer.config.yaml_document import load, with_line
from sandboxer.errors import Invalid
from sandboxer.models import (
    ApiSettings,
    ExtensionSettings,
    HostSettings,
    OpenBaoSettings,
    Settings,
    SnapshotSettings,
    TokenSettings,
)
from sandboxer.models.references import check_references, parse_local_reference, parse_reference
from sandboxer.names import LABEL_KEY, parse_actor, parse_size
from sandboxer.timing import parse_duration, parse_time

MOST = 65536
"""The highest quota."""

LOCAL = "local"
"""The name of this machine as a placement host."""


def load_settings(directory: Path, environment: Mapping[str, str]) -> Settings:
    """What config.yaml in `directory` says, the environment over it. Raises Invalid."""
    file = directory / "config.yaml"
    settings = load(file, Settings) if file.exists() else Settings()
    settings = _with_environment(settings, environment)
    try:
        _check(settings)
    except Invalid as error:
        raise with_line(error, file, source="config.yaml") from None
    return settings


def _with_environment(settings: Settings, environment: Mapping[str, str]) -> Settings:
    replace = msgspec.structs.replace
    get = environment.get
    if url := get("SANDBOXER_STATE_HUB_URL"):
        settings = replace(settings, state_hub=replace(settings.state_hub, url=url))
    if url := get("SANDBOXER_FIN_HUB_URL"):
        settings = replace(settings, fin_hub=replace(settings.fin_hub, url=url))
    # what a file ends with is no part of its token; and a blank one is none, or there would be one that nobody can send
    token = get("SANDBOXER_API_TOKEN", "").strip() or (settings.api.token or "").strip() or None
    settings = replace(settings, api=replace(settings.api, token=token))
    if actor := get("SANDBOXER_ACTOR"):
        parse_actor(actor, what="SANDBOXER_ACTOR")
        settings = replace(settings, defaults=replace(settings.defaults, actor=actor))
    return replace(settings, openbao=_openbao_with_environment(settings.openbao, environment))


def _openbao_with_environment(openbao: OpenBaoSettings, environment: Mapping[str, str]) -> OpenBaoSettings:
    """OpenBao's own variables, or Vault's. A token stays where it is: the settings get a reference to its variable."""
    replace = msgspec.structs.replace

    def given(name: str) -> str | None:
        return next((key for key in (f"BAO_{name}", f"VAULT_{name}") if environment.get(key)), None)

    if variable := given("ADDR"):
        openbao = replace(openbao, address=environment[variable])
    if variable := given("NAMESPACE"):
        openbao = replace(openbao, namespace=environment[variable])
    if variable := given("CACERT"):
        openbao = replace(openbao, ca_file=environment[variable])
    if variable := given("TOKEN"):
        openbao = replace(openbao, token=f"env:{variable}", app_role=None)
    return openbao


def _check(settings: Settings) -> None:
    for name, host in settings.hosts.items():
        if not name or name.startswith("-") or any(c.isspace() for c in name):
            raise Invalid(f"config.yaml: {name!r} is not a host's name", hint="use letters, digits, '.', '-' and '_'")
        if host.work_dir is not None and not host.work_dir.startswith(("/", "~/")):
            raise Invalid(
                f"config.yaml: hosts.{name}.work_dir {host.work_dir!r} is not absolute",
                hint="start it with / or ~/",
            )
        if host.port is not None and not 0 < host.port < 65536:
            raise Invalid(f"config.yaml: hosts.{name}.port {host.port} is not a port", hint="use 1 to 65535")
        check_prices(host.prices, "config.yaml", f"hosts.{name}.prices")
    if settings.defaults.actor is not None:
        parse_actor(settings.defaults.actor, what="config.yaml: defaults.actor")
    if settings.defaults.ttl is not None:
        parse_duration(settings.defaults.ttl, what="config.yaml: defaults.ttl")
    for name, extension in settings.extensions.items():
        _check_extension(name, extension)
    for consumer, budget in settings.budgets.items():
        if consumer != "*":
            _check_consumer(consumer, "budgets")
        check_amount(budget.usd, "config.yaml", f"budgets.{consumer}.usd")
    for consumer, quota in settings.quotas.items():
        if consumer != "*":
            _check_consumer(consumer, "quotas")
        limits = {"live": quota.live, "creates_per_minute": quota.creates_per_minute, "execs": quota.execs}
        for key, limit in limits.items():
            if limit is not None and not 0 <= limit <= MOST:
                raise Invalid(f"config.yaml: quotas.{consumer}.{key} is not 0 to {MOST}", hint="leave it out for none")
    _check_snapshots(settings.snapshots)
    _check_api(settings.api)
    _check_openbao(settings.openbao)


def snapshot_files(settings: Settings, data: Path) -> Path:
    """Where the files of snapshots are kept."""
    store = settings.snapshots.store
    return data / "snapshots" if store is None else Path(store).expanduser()


def _check_snapshots(snapshots: SnapshotSettings) -> None:
    if snapshots.store is not None and not snapshots.store.startswith(("/", "~/")):
        raise Invalid(
            f"config.yaml: snapshots.store {snapshots.store[:80]!r} is not absolute", hint="start it with / or ~/"
        )
    most = snapshots.max_bytes
    if isinstance(most, str):
        most = parse_size(most, what="config.yaml: snapshots.max_bytes")
    if most is not None and most < 1:
        raise Invalid("config.yaml: snapshots.max_bytes is below 1", hint="write it like 20G, or leave it out")
    if snapshots.keep is not None and not 1 <= snapshots.keep <= MOST:
        raise Invalid(f"config.yaml: snapshots.keep is not 1 to {MOST}", hint="leave it out to keep all")


def _check_api(api: ApiSettings) -> None:
    if not 0 <= api.port < 65536:
        raise Invalid(f"config.yaml: api.port {api.port} is not a port", hint="use 1 to 65535, or 0 for any free one")
    if api.token is not None and not api.token.isprintable():
        raise Invalid(
            "api.token (or SANDBOXER_API_TOKEN) has characters that no header can carry",
            hint="make one with `openssl rand -hex 32`",
        )
    for place, root in enumerate(api.allowed_roots):
        if not root.startswith(("/", "~/")):
            key = f"api.allowed_roots[{place}]"
            raise Invalid(f"config.yaml: {key} {root!r} is not absolute", hint="start it with / or ~/")
    names = [token.name for token in api.tokens]
    for place, token in enumerate(api.tokens):
        _check_token(token, f"api.tokens[{place}]")
        if token.name in names[:place]:
            raise Invalid(
                f"config.yaml: api.tokens[{place}].name {token.name!r} is that of another one too",
                hint="name each differently",
            )


def _check_token(token: TokenSettings, key: str) -> None:
    if not LABEL_KEY.fullmatch(token.name):
        raise Invalid(f"config.yaml: {key}.name is not a name", hint="use letters, digits, '.', '_', '/' and '-'")
    parse_reference(token.ref, what=f"config.yaml: {key}.ref")
    if token.consumer is not None:
        parse_actor(token.consumer, what=f"config.yaml: {key}.consumer")
    elif token.role != "admin":
        raise Invalid(f"config.yaml: {key} needs a consumer", hint="write consumer: agt:NAME, or role: admin")
    if token.budget is not None:
        check_amount(token.budget, "config.yaml", f"{key}.budget")
    if token.expires is not None:
        parse_time(token.expires, what=f"config.yaml: {key}.expires")


def _check_extension(name: str, extension: ExtensionSettings) -> None:
    if not EXTENSION_ID.fullmatch(name):
        raise Invalid(f"config.yaml: extensions.{name[:80]!r} is not an extension's id", hint="write it as ext.NAME")
    key = f"extensions.{name}"
    check_references(extension.secrets, "config.yaml", f"{key}.secrets")
    for endpoint, address in extension.endpoints.items():
        if "://" in address:  # the others are words of the provider's own, like the name of an environment
            check_address(address, f"config.yaml: {key}.endpoints.{endpoint}")
    check_prices(extension.prices, "config.yaml", f"{key}.prices")
    if extension.max_ttl is not None:
        parse_duration(extension.max_ttl, what=f"config.yaml: {key}.max_ttl")
    if extension.max_live is not None and extension.max_live < 1:
        raise Invalid(f"config.yaml: {key}.max_live is below 1", hint="write enabled: false to let none live")


def _check_consumer(consumer: str, key: str) -> None:
    try:
        parse_actor(consumer)
    except Invalid:
        raise Invalid(
            f"config.yaml: {key}.{consumer[:80]!r} is not a consumer",
            hint="write agt:NAME, adm:NAME, atm:NAME or '*'",
        ) from None


def _check_openbao(openbao: OpenBaoSettings) -> None:
    if openbao.address is not None:
        check_address(openbao.address, "openbao.address (or BAO_ADDR)")
    if openbao.namespace is not None and not (openbao.namespace.isascii() and openbao.namespace.isprintable()):
        raise Invalid("openbao.namespace has characters that cannot be sent", hint="write it like team/project")
    if openbao.token is not None and openbao.app_role is not None:
        raise Invalid("config.yaml: openbao has both a token and an app_role", hint="remove one of them")
    if openbao.token is not None:
        parse_local_reference(openbao.token, what="config.yaml: openbao.token")
    if openbao.app_role is not None:
        role = openbao.app_role
        parse_local_reference(role.secret_id, what="config.yaml: openbao.app_role.secret_id")
        if not role.role_id or not all(
            step.isprintable() and step not in ("", ".", "..") for step in role.mount.split("/")
        ):
            raise Invalid("config.yaml: openbao.app_role is not complete", hint="give role_id, secret_id and mount")
    if openbao.ca_file is not None and not openbao.ca_file.startswith(("/", "~/")):
        raise Invalid("openbao.ca_file (or BAO_CACERT) is not absolute", hint="start it with / or ~/")


def check_address(text: str, what: str) -> None:
    """The address of an HTTP service, without credentials in it. Raises Invalid, which never quotes it."""
    from urllib.parse import urlsplit  # only those who write addresses pay for it

    hint = "write it like https://bao.example.org:8200"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise Invalid(f"{what} is not an address", hint=hint) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not _plain(text):
        raise Invalid(f"{what} is not an http or https address", hint=hint)
    if parts.username is not None or parts.password is not None:
        raise Invalid(f"{what} holds credentials", hint="put them where a secret reference can name them")
    if parts.query or parts.fragment:
        raise Invalid(f"{what} has more than a host and a path", hint=hint)


def _plain(text: str) -> bool:
    return text.isprintable() and " " not in text


def host_settings(settings: Settings, name: str, environment: Mapping[str, str]) -> HostSettings:
    """The settings of one placement host; a host that is not configured has all defaults."""
    host = settings.hosts.get(name) or HostSettings()
    if compose := environment.get("SANDBOXER_COMPOSE_CMD"):
        host = msgspec.structs.replace(host, compose=compose)
    return host
