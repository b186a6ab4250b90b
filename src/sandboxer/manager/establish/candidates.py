"""Gather what is known of each backend that may serve a request, for `routing.selection`. Nothing is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import msgspec

from sandboxer import secrets
from sandboxer.config.yaml_document import complaint, place_of
from sandboxer.errors import Invalid, NotConfigured, NotFound, SandboxerError, Unsupported
from sandboxer.extensions.base import CAPABILITIES, capabilities
from sandboxer.manager import billing
from sandboxer.manager.access import consumer_name
from sandboxer.manager.services import Services
from sandboxer.models import Consumer, Decision, Manifest, Profile, Requirements, SecretRef, Value
from sandboxer.names import check_host
from sandboxer.payments.ledger import TokenBudget
from sandboxer.payments.usage import consumer_of
from sandboxer.routing import Placement, place
from sandboxer.routing.requirements import check_requirements
from sandboxer.routing.selection import CandidateFacts, Selection, select
from sandboxer.state import LIVE
from sandboxer.store.base import holds_name
from sandboxer.timing import parse_duration


class Candidate(Value, frozen=True, kw_only=True):
    """One backend that may be tried: an extension, one of its hosts (None: it has none), and the options with which it
    gives what is required. `provider`: a create there is one call of somebody else's API, so that what is found of it
    is whole. `max_ttl` is in seconds."""

    extension: str
    host: str | None
    options: dict[str, Any]
    provider: bool = False
    metered: bool = False
    max_ttl: int | None = None
    max_live: int | None = None


class CandidateList(msgspec.Struct, frozen=True, kw_only=True):
    """The candidates that can be tried, in turn, and the decision on each; then those on the others. `error` when there
    is none to try."""

    strategy: str
    candidates: tuple[Candidate, ...]
    decisions: list[Decision]
    error: SandboxerError | None


class Constraints(msgspec.Struct, frozen=True, kw_only=True):
    """What of a request bears on the choice: the host that was asked for, the lifetime (seconds, None never ends), who
    pays (`token`: from whose budget besides), and the sandbox that goes before the new one comes."""

    host: str | None
    ttl: int | None
    consumer: Consumer
    replaces: str | None = None
    token: TokenBudget | None = None


def find_candidates(services: Services, profile: Profile, asked: Constraints) -> CandidateList:
    """Look at everything that may serve `profile`, and decide. Raises Invalid for a profile that is wrong, and, for a
    profile with one `extension`, NotFound or Invalid when that cannot be had."""
    check_route(profile)
    facts: list[CandidateFacts] = []
    found: list[Candidate | None] = []
    passed_over: list[Decision] = []
    shared = _SharedFacts(services, profile, asked)
    for name in dict.fromkeys(profile_extensions(profile)):
        of_extension = _facts_of(shared, name)
        facts += [seen for seen, _ in of_extension.candidates]
        found += [candidate for _, candidate in of_extension.candidates]
        passed_over += of_extension.passed_over
    strategy = profile.route.strategy if profile.route is not None else "explicit"
    decided: Selection = select(facts, strategy=strategy, require=_required(profile), ttl=asked.ttl, subject=profile.id)
    decisions = [*decided.usable, *decided.skipped, *passed_over]
    if decided.error is not None:
        decided.error.details = {"decisions": msgspec.to_builtins(decisions)}
    return CandidateList(
        strategy=strategy,
        candidates=tuple(candidate for n in decided.order if (candidate := found[n]) is not None),
        decisions=decisions,
        error=decided.error,
    )


class _SharedFacts:
    """What all candidates of one request have in common; files that each would ask for are read once."""

    def __init__(self, services: Services, profile: Profile, asked: Constraints) -> None:
        self.services = services
        self.profile = profile
        self.asked = asked
        self.routed = profile.route is not None
        self.manifests = manifests_of(services, profile)
        self.health = services.health.seen() if self.routed else None
        self._spare: Decimal | None = None

    def uncovered(self, usd: Decimal) -> str | None:
        """Why so much more cannot be reserved; None when it can."""
        consumer = consumer_name(self.asked.consumer)
        if self._spare is None:
            self._spare = self.services.credits.spare(consumer, token=self.asked.token) + self._given_back(consumer)
        return (
            None if usd <= self._spare else self.services.credits.covers(usd, consumer=consumer, token=self.asked.token)
        )

    def _given_back(self, consumer: str) -> Decimal:
        """What the sandbox that goes first will give back of what this consumer has set aside for it."""
        record = None if self.asked.replaces is None else self.services.store.get(self.asked.replaces)
        if record is None or consumer_of(record) != consumer:
            return billing.ZERO_USD
        held = self.services.credits.reserved(record.id)
        kept = billing.kept_when_replaced(self.services, record)
        return billing.ZERO_USD if held is None else max(billing.ZERO_USD, held - kept)


class _ExtensionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One extension: its candidates (one for each host), and the listed hosts that were passed over."""

    candidates: Sequence[tuple[CandidateFacts, Candidate | None]]
    passed_over: Sequence[Decision] = ()


def _required(profile: Profile) -> Requirements:
    """What a profile requires: also that what is to be stopped when it is idle can be."""
    require = profile.require
    if profile.ttl.idle_action != "stop" or "stop" in require.capabilities:
        return require
    return msgspec.structs.replace(require, capabilities=[*require.capabilities, "stop"])


def _facts_of(shared: _SharedFacts, name: str) -> _ExtensionFacts:
    services, profile, asked = shared.services, shared.profile, shared.asked
    try:
        manifest = shared.manifests.get(name) or services.extensions.manifest(name)
        extension = services.extensions.get(name)
    except (NotFound, Invalid) as error:
        if not shared.routed:
            raise
        return _ExtensionFacts(
            candidates=[(CandidateFacts(extension=name, absent=error.message, usd_per_hour=None), None)]
        )
    options = profile_options(services, profile, manifest, extension.Options)
    unfit = None
    try:
        options = extension.fit(options, profile.require)
    except Unsupported as error:
        unfit = error.message
    placement = _placement(services, profile, manifest, asked.host)
    missing, missing_hint = _missing(
        services, {**manifest.secrets, **refs_of(profile, shared.manifests, name)}, manifest
    )
    known = CandidateFacts(
        extension=name,
        self_hosted=manifest.self_hosted,
        isolation=manifest.isolation.class_,
        capabilities=frozenset(capabilities(type(extension))),
        enabled=not shared.routed or services.extensions.enabled(name),
        misplaced=(
            f"it has no placement hosts, and --host {asked.host} was given"
            if asked.host is not None and not manifest.self_hosted
            else None
        ),
        unfit=unfit,
        missing=missing,
        missing_hint=missing_hint,
        max_ttl=None if manifest.max_ttl is None else parse_duration(manifest.max_ttl),
        live=0 if manifest.max_live is None else live_count(services.store.list(), name, without=asked.replaces),
        max_live=manifest.max_live,
    )
    hosts: Sequence[str | None] = placement.hosts if placement is not None else [None]
    placed = placement.reason if placement is not None else ""
    return _ExtensionFacts(
        candidates=[
            _on_host(shared, known, manifest=manifest, host=host, options=options, reason=placed) for host in hosts
        ],
        passed_over=placement.decisions if placement is not None else (),
    )


def _missing(services: Services, refs: Mapping[str, SecretRef], manifest: Manifest) -> tuple[str | None, str]:
    """The first credential that is certainly not there, in words, and what to do about it; None when all may be."""
    for name, ref in refs.items():
        gone = secrets.present(ref, services.environment)
        if gone is None:
            continue
        elsewhere = f", or say under extensions.{manifest.id}.secrets in config.yaml where it is"
        why = gone.message.partition(": ")[2] or gone.message
        plain = ref.ref == f"env:{name}"
        said = f"{name} is not set in the environment" if plain else f"its credential {name} is missing: {why}"
        return said, gone.hint + (elsewhere if name in manifest.secrets else "")
    return None, ""


def _placement(services: Services, profile: Profile, manifest: Manifest, flag: str | None) -> Placement | None:
    """The hosts of a self-hosted extension; None for a provider's, which has none."""
    if not manifest.self_hosted:
        return None
    found = place(
        extension=manifest.id,
        flag=flag,
        environment=services.environment.get("SANDBOXER_HOST"),
        listed=profile.placement.hosts,
        configured=services.settings.hosts,
        default=services.settings.defaults.host,
    )
    for name in found.hosts:
        check_host(name)
    return found


def _on_host(
    shared: _SharedFacts, known: CandidateFacts, *, manifest: Manifest, host: str | None, options: Any, reason: str
) -> tuple[CandidateFacts, Candidate]:
    """One candidate on one host, with its price and how it has done so far."""
    unpriced = uncovered = quote = None
    if known.unfit is None:  # options that cannot be had have no price
        try:
            quote = billing.quote_for(shared.services, manifest, host=host, options=options, ttl=shared.asked.ttl)
        except NotConfigured as error:
            unpriced = error.message
    if quote is not None and quote.metered:
        uncovered = shared.uncovered(quote.estimated_usd)
    facts = msgspec.structs.replace(
        known,
        host=host,
        placed=reason,
        unpriced=unpriced,
        uncovered=uncovered,
        usd_per_hour=None if quote is None else quote.usd_per_hour,
        estimated_usd=None if quote is None else quote.estimated_usd,
        # Who names one extension wants that one, well or not; a route has others to go to.
        circuit="closed" if shared.health is None else shared.health.circuit(known.extension, host),
        create_seconds=None if shared.health is None else shared.health.create_seconds(known.extension, host),
    )
    return facts, Candidate(
        extension=known.extension,
        host=host,
        options=msgspec.to_builtins(options),
        provider=not known.self_hosted,
        metered=quote is not None and quote.metered,
        max_ttl=known.max_ttl,
        max_live=known.max_live,
    )


def profile_extensions(profile: Profile) -> Sequence[str]:
    """The extensions that may serve a profile."""
    if profile.extension is not None:
        return [profile.extension]
    return profile.route.candidates if profile.route is not None else []


def profile_options(services: Services, profile: Profile, manifest: Manifest, model: type[Any]) -> Any:
    """The options with which a profile asks for an extension: the manifest's, the profile's over them, and over those
    the route's own for this candidate. Raises Invalid naming the option and its line in the profile's file."""
    own = profile.route.options.get(manifest.id, {}) if profile.route is not None else {}
    options = {**manifest.options, **profile.options, **own}
    try:
        return msgspec.convert(options, model)
    except msgspec.ValidationError as error:
        said = complaint(error, options, model)
        place = ""
        # what a model says of several options together names none of them
        named = said.steps[0] if said.steps else next(iter({**own, **profile.options}), None)
        above = ("route", "options", manifest.id) if named in own else ("options",) if named in profile.options else ()
        file = services.profiles.file_of(profile)
        if above and file is not None:
            steps = (*above, *said.steps)
            place = f"{place_of(file, steps)}: "
            said = said._replace(steps=steps if said.steps else ())
        raise _bad_options(manifest.id, f"{place}options of {manifest.id}: {said}") from None


def checked_options(extension_id: str, model: type[Any], options: Mapping[str, Any]) -> Any:
    """The options as the extension's own model; raises Invalid naming the option."""
    try:
        return msgspec.convert(dict(options), model)
    except msgspec.ValidationError as error:
        raise _bad_options(extension_id, f"options of {extension_id}: {error}") from None


def _bad_options(extension_id: str, message: str) -> Invalid:
    return Invalid(message, hint=f"run `sandboxer extensions show {extension_id}`")


def check_route(profile: Profile) -> None:
    """What a profile says of routes and requirements, where no model says it. Raises Invalid."""
    check_requirements(profile.require, list(CAPABILITIES), profile.id)
    if profile.route is None:
        return
    for name in profile.route.options:
        if name not in profile.route.candidates:
            raise Invalid(
                f"{profile.id}: route.options has {name[:80]!r}, which is no candidate",
                hint=f"its candidates: {', '.join(profile.route.candidates)}",
            )


def check_profile(services: Services, profile: Profile) -> None:
    """A profile with all that it names: its route, its extensions, its options. Raises NotFound and Invalid, which tell
    its file."""
    file = services.profiles.file_of(profile)
    check_route(profile)
    for name in profile_extensions(profile):
        try:
            extension, manifest = services.extensions.get(name), services.extensions.manifest(name)
        except (NotFound, Invalid) as error:
            raise type(error)(f"{file or profile.id}: {error.message}", hint=error.hint) from None
        profile_options(services, profile, manifest, extension.Options)


def manifests_of(services: Services, profile: Profile) -> dict[str, Manifest]:
    """The manifests of the extensions of a profile, without those that cannot be had."""
    found: dict[str, Manifest] = {}
    for name in profile_extensions(profile):
        with suppress(NotFound, Invalid):  # a route passes it over, and says why
            found[name] = services.extensions.manifest(name)
    return found


def refs_of(profile: Profile, manifests: Mapping[str, Manifest], extension_id: str) -> dict[str, SecretRef]:
    """The profile's own secret references, as far as they are this candidate's: a credential that only another
    candidate has in its manifest is not asked for. Pure."""
    if profile.route is None or not profile.secrets:
        return profile.secrets
    own = manifests[extension_id].secrets if extension_id in manifests else {}
    others = {secret for manifest in manifests.values() for secret in manifest.secrets}
    return {name: ref for name, ref in profile.secrets.items() if name in own or name not in others}


def live_count(records: Sequence[Any], extension_id: str, *, without: str | None) -> int:
    """How many sandboxes of an extension may be there now: all that live, but for those of which nothing is left."""
    return sum(
        1
        for record in records
        if record.extension == extension_id and record.id != without and record.state in LIVE and holds_name(record)
    )
