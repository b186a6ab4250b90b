"""From what was asked to what will be done, before anything is touched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sandboxer.config.catalog import resolve_inputs
from sandboxer.errors import Denied, Invalid, Unsupported
from sandboxer.manager.core import Core
from sandboxer.models import Consumer, Decision, Profile, Request, Route, Value
from sandboxer.names import check_host, check_labels, check_name, parse_actor
from sandboxer.routing import place
from sandboxer.timing import parse_duration

MAX_KEY = 255
"""The longest idempotency key, in characters."""


class Plan(Value, frozen=True, kw_only=True):
    """What a create will do. `inputs` are complete and may hold secrets: it is never stored; `shown_inputs` may be."""

    request: Request
    consumer: Consumer
    profile: Profile
    extension: str
    hosts: tuple[str, ...]
    route: Route
    inputs: dict[str, Any]
    shown_inputs: dict[str, Any]
    options: dict[str, Any]
    ttl: int | None
    max_ttl: int | None
    failed_ttl: int
    idempotency_key: str | None
    fingerprint: str


def make_plan(
    core: Core,
    request: Request,
    *,
    actor: str | None,
    idempotency_key: str | None,
    base: Path,
    roots: Sequence[Path] | None = None,
) -> Plan:
    """Check a request against its profile and extension; raises Invalid, NotFound, Denied, Unsupported.

    `base` is where relative path inputs start; `roots`, when given, are the only directories that path inputs may lie
    below (the server's files are not the caller's)."""
    profile = core.profiles.get(request.profile)
    extension_id = choose_extension(profile)
    manifest = core.extensions.manifest(extension_id)
    extension = core.extensions.get(extension_id)
    options = {**manifest.options, **profile.options}
    checked_options(extension_id, extension.Options, options)
    inputs = resolve_inputs(profile, request.inputs, base=base)
    if roots is not None:
        _check_roots(profile, inputs, roots)
    if request.name is not None:
        check_name(request.name)
    check_labels(request.labels)
    if idempotency_key is not None and not (0 < len(idempotency_key) <= MAX_KEY and idempotency_key.isprintable()):
        raise Invalid("the idempotency key is not allowed", hint=f"use 1 to {MAX_KEY} printable characters")
    consumer = _consumer(core, actor)
    placement = place(
        extension=extension_id,
        flag=request.host,
        environment=core.environment.get("SANDBOXER_HOST"),
        listed=profile.placement.hosts,
        configured=core.settings.hosts,
        default=core.settings.defaults.host,
    )
    for name in placement.hosts:
        check_host(name)
    shown = {key: "(secret)" if profile.inputs[key].secret else value for key, value in inputs.items()}
    route = Route(
        strategy=profile.route.strategy if profile.route else "explicit",
        decisions=[
            *placement.decisions,
            Decision(extension=extension_id, outcome="chosen", reason=placement.reason, host=placement.hosts[0]),
        ],
    )
    return Plan(
        request=msgspec.structs.replace(request, inputs=shown),
        consumer=consumer,
        profile=profile,
        extension=extension_id,
        hosts=placement.hosts,
        route=route,
        inputs=inputs,
        shown_inputs=shown,
        options=options,
        ttl=_ttl(core, profile, request),
        max_ttl=_optional(profile.ttl.max),
        failed_ttl=parse_duration(profile.ttl.failed),
        idempotency_key=idempotency_key,
        fingerprint=_fingerprint(request, shown, consumer),
    )


def profile_extensions(profile: Profile) -> Sequence[str]:
    """The extensions that may serve a profile."""
    if profile.extension is not None:
        return [profile.extension]
    return profile.route.candidates if profile.route is not None else []


def choose_extension(profile: Profile) -> str:
    """The extension that serves a profile; raises Unsupported for a policy that needs more than one look."""
    if profile.extension is not None:
        return profile.extension
    assert profile.route is not None  # noqa: S101 - check_profile has seen to it
    if profile.route.strategy != "explicit" and len(profile.route.candidates) > 1:
        raise Unsupported(
            f"{profile.id}: route strategy {profile.route.strategy!r} is not supported",
            hint="use strategy 'explicit', or name one 'extension'",
        )
    return profile.route.candidates[0]


def checked_options(extension_id: str, model: type[Any], options: Mapping[str, Any]) -> Any:
    """The options as the extension's own model; raises Invalid naming the option."""
    try:
        return msgspec.convert(dict(options), model)
    except msgspec.ValidationError as error:
        raise Invalid(
            f"options of {extension_id}: {error}", hint=f"run `sandboxer extensions show {extension_id}`"
        ) from None


def _consumer(core: Core, actor: str | None) -> Consumer:
    text = actor or core.settings.defaults.actor
    if text is None:
        user = core.environment.get("USER") or core.environment.get("LOGNAME") or "unknown"
        text = f"adm:{user}"
    kind, name = parse_actor(text)
    return Consumer(actor=kind, name=name)  # type: ignore[arg-type]  # parse_actor admits only the three types


def _ttl(core: Core, profile: Profile, request: Request) -> int | None:
    longest = _optional(profile.ttl.max)
    if request.ttl is not None:
        if longest is not None and request.ttl > longest:
            raise Invalid(
                f"ttl {request.ttl}s is over the {longest}s that {profile.id} allows",
                hint=f"give at most --ttl {profile.ttl.max}",
            )
        return request.ttl
    wanted = _optional(core.settings.defaults.ttl)
    if wanted is None:
        return _optional(profile.ttl.default)
    return wanted if longest is None else min(wanted, longest)


def _optional(text: str | int | None) -> int | None:
    return None if text is None else parse_duration(text)


def _fingerprint(request: Request, shown: Mapping[str, Any], consumer: Consumer) -> str:
    """What makes two requests the same for an idempotency key: all that was asked, without secret values."""
    import hashlib  # 7 ms that only a create pays

    asked = msgspec.to_builtins(msgspec.structs.replace(request, inputs=dict(shown), timeout=None))
    text = json.dumps([asked, msgspec.to_builtins(consumer)], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_roots(profile: Profile, inputs: Mapping[str, Any], roots: Sequence[Path]) -> None:
    for name, spec in profile.inputs.items():
        value = inputs.get(name)
        if spec.type != "path" or value is None:
            continue
        if not any(Path(value).is_relative_to(root.resolve()) for root in roots):
            raise Denied(
                f"input {name!r} is not below an allowed directory",
                hint="the operator lists directories in config.yaml under api.allowed_roots",
            )
