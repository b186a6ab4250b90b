"""Read one secret from OpenBao (or Vault): a KV engine, version 2, with a token or by an AppRole login."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sandboxer import document_bounds
from sandboxer.errors import BackendError, Denied, NotConfigured, SandboxerError, Unavailable
from sandboxer.http import ApiClient, Response, response_error, segment
from sandboxer.models import AppRole, OpenBaoSettings
from sandboxer.models.references import OpenBaoReference, expand
from sandboxer.secrets.secret import Secret
from sandboxer.timing import Deadline, format_duration

SECONDS: Final = 20.0
"""How long reading one value may take, login and repetitions included, within the deadline of the whole."""
MAX_ANSWER: Final = document_bounds.SMALL.size
"""The longest answer that is read, in bytes; OpenBao keeps secrets of up to 1 MiB by default."""
_LOGIN: Final = "set BAO_TOKEN, or openbao.token or openbao.app_role in config.yaml"


def read(
    reference: OpenBaoReference,
    what: str,
    settings: OpenBaoSettings,
    *,
    login: Secret | None,
    home: str | None,
    deadline: Deadline,
) -> str:
    """Read the value of one key of the newest version. `login` is the token, or the AppRole's secret id; `what` names
    the secret in errors, `home` is where a ca_file with `~` begins.

    Raises NotConfigured (no address, no login, no such path or key, or its newest version is deleted), Denied,
    Unavailable, BackendError, Timeout."""
    if settings.address is None:
        raise NotConfigured(
            f"{what}: no OpenBao is configured for {reference}", hint="set BAO_ADDR, or openbao.address in config.yaml"
        )
    if login is None:
        raise NotConfigured(f"{what}: there is no login to OpenBao for {reference}", hint=_LOGIN)
    end = deadline.shorter(SECONDS)
    token = login if settings.app_role is None else log_in(settings, settings.app_role, login, home=home, deadline=end)
    api = connect(settings, token, home=home)
    mount = "/".join(segment(step) for step in reference.mount.split("/"))
    path = "/".join(segment(step) for step in reference.path.split("/"))
    answer = api.call("GET", f"/v1/{mount}/data/{path}", end, retry="safe", expect=(200, 403, 404), limit=MAX_ANSWER)
    if answer.status == 403:
        raise Denied(
            f"{what}: OpenBao does not let us read {reference}",
            hint="see whether the token still lives (`bao token lookup`) and whether its policy grants 'read' on "
            f"{reference.mount}/data/{reference.path}",
        )
    return _value(answer, reference, what)


def _value(answer: Response, reference: OpenBaoReference, what: str) -> str:
    values, deleted = _data(answer)
    if values is None and deleted:
        raise NotConfigured(
            f"{what}: the newest version of {reference} is deleted",
            hint=f"run `bao kv put -mount={reference.mount} {reference.path} ...`, or undelete it",
        )
    if values is None:
        raise NotConfigured(
            f"{what}: OpenBao has nothing at {reference}",
            hint="check the mount (a KV engine, version 2) and the path; `bao kv list` shows what is there",
        )
    if reference.key not in values:
        raise NotConfigured(
            f"{what}: OpenBao has no key {reference.key!r} at {reference}",
            hint=f"its keys are shown by `bao kv get -mount={reference.mount} {reference.path}`",
        )
    value = values[reference.key]
    if not isinstance(value, str):
        raise BackendError(f"{what}: what OpenBao has at {reference} is not text", hint="store it as text")
    return value


def _data(answer: Response) -> tuple[Mapping[str, Any] | None, bool]:
    """Extract the keys and values, and whether the newest version was deleted: that is a 404 with metadata."""
    document = answer.json()
    outer = document.get("data") if isinstance(document, dict) else None
    if not isinstance(outer, dict) or "metadata" not in outer:
        return None, False  # nothing there; or an engine of version 1, which knows no metadata
    inner = outer.get("data")
    return (inner, False) if isinstance(inner, dict) else (None, True)


def log_in(
    settings: OpenBaoSettings, role: AppRole, secret_id: Secret, *, home: str | None, deadline: Deadline
) -> Secret:
    """Log in by AppRole for a token that is used once and forgotten. Raises Denied, Unavailable, BackendError,
    Timeout."""
    mount = "/".join(segment(step) for step in role.mount.split("/"))
    answer = connect(settings, None, home=home).call(
        "POST",
        f"/v1/auth/{mount}/login",
        deadline,
        json={"role_id": role.role_id, "secret_id": secret_id.reveal()},
        expect=(200, 400, 401, 403, 404),
        limit=MAX_ANSWER,
    )
    if answer.status != 200:
        raise Denied(
            f"OpenBao refuses the AppRole login at auth/{role.mount}",
            hint="check openbao.app_role in config.yaml, and whether its secret id has expired or was used up",
        )
    document = answer.json()
    auth = document.get("auth") if isinstance(document, dict) else None
    token = auth.get("client_token") if isinstance(auth, dict) else None
    if not isinstance(token, str) or not token:
        raise BackendError("OpenBao's answer to the AppRole login has no token", hint="check openbao.address")
    return Secret(token)


def examine(
    settings: OpenBaoSettings, environment: Mapping[str, str], deadline: Deadline, *, login: Secret | None
) -> str:
    """Describe the server and our login; no secret is read. Raises as `read` does."""
    home = environment.get("HOME")
    health = connect(settings, None, home=home).call(
        "GET", "/v1/sys/health", deadline, retry="safe", expect=(200, 429, 472, 473), params={"standbyok": "true"}
    )
    version = health.json().get("version")
    text = f"{settings.address} answers" + (f", version {version}" if isinstance(version, str) else "")
    if login is None:
        raise NotConfigured(f"{text}, but there is no login to it", hint=_LOGIN)
    if settings.app_role is not None:
        log_in(settings, settings.app_role, login, home=home, deadline=deadline)
        return f"{text}; the AppRole login works"
    answer = connect(settings, login, home=home).call(
        "GET", "/v1/auth/token/lookup-self", deadline, retry="safe", expect=(200, 403)
    )
    if answer.status == 403:
        raise Denied(f"{text}, but refuses our token", hint="log in again, or renew it: `bao token lookup`")
    return f"{text}; the token is good" + _lifetime(answer)


def _lifetime(answer: Response) -> str:
    data = answer.json().get("data")
    ttl = data.get("ttl") if isinstance(data, dict) else None
    return f" for {format_duration(ttl)}" if isinstance(ttl, int) and ttl > 0 else ""


def connect(settings: OpenBaoSettings, token: Secret | None, *, home: str | None) -> ApiClient:
    """Make the client of OpenBao's API for a token. Raises Invalid for an address that cannot be used."""
    assert settings.address is not None  # noqa: S101 - both callers have looked
    namespace = {} if settings.namespace is None else {"X-Vault-Namespace": settings.namespace}

    def headers() -> Mapping[str, str]:
        # its agents may be told to refuse requests without the first, so that no browser can be used against them
        return {"X-Vault-Request": "true", **namespace, **({} if token is None else {"X-Vault-Token": token.reveal()})}

    ca_file = None if settings.ca_file is None else str(expand(settings.ca_file, home))
    return ApiClient(
        settings.address,
        name="OpenBao",
        headers=headers,
        refuse=_response_error,
        ca_file=ca_file,
        outage_hint="see what `bao status` says",
    )


def _response_error(answer: Response) -> SandboxerError:
    if answer.status == 503:
        return Unavailable(
            "OpenBao is sealed, or does not serve now", hint="unseal it: `bao status`, `bao operator unseal`"
        )
    if answer.status == 501:
        return Unavailable("OpenBao is not initialized", hint="run `bao operator init`", retryable=False)
    if 300 <= answer.status < 400:
        return BackendError(
            "OpenBao leads to another address, which is not followed", hint="set the active node's in openbao.address"
        )
    error = response_error(answer)
    # its words could be about what was sent
    return type(error)(f"OpenBao answered {answer.asked} with {answer.status}", hint="look at OpenBao's own log")
