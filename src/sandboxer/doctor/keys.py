"""Keys of providers: which are there, and whether OpenBao would give them. No value is read from it, or told."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator, Mapping

from sandboxer.bootstrap import Installation
from sandboxer.doctor.finding import LOOK_SECONDS, Finding, of_error
from sandboxer.errors import Invalid, NotConfigured, NotFound, SandboxerError
from sandboxer.models import SecretRef
from sandboxer.models.references import CommandReference, EnvReference, FileReference, expand, parse_reference
from sandboxer.secrets import login_of, missing
from sandboxer.timing import Deadline


def credentials(here: Installation) -> Iterator[Finding]:
    """Which keys of providers are there; never their values. Nobody is asked for them."""
    try:
        manifests = here.manager.services.extensions.manifests()
    except (Invalid, NotFound):
        return  # said below, of the extensions
    for manifest in manifests:
        if not manifest.secrets:
            continue
        found = {name: _credential(here, ref) for name, ref in manifest.secrets.items()}
        gone = [error for name, error in found.items() if error is not None and manifest.secrets[name].required]
        configured = here.settings.extensions.get(manifest.id)
        wanted = len(gone) < len(found) or (configured is not None and bool(configured.secrets))
        subject = f"{manifest.id} credentials"
        if not gone:
            text = ", ".join(f"{name} ({ref.ref.partition(':')[0]})" for name, ref in manifest.secrets.items())
            yield Finding(subject=subject, level="ok", text=f"there: {text}")
        elif not wanted:
            text = f"none, so routes pass it over: {gone[0].message}"
            yield Finding(subject=subject, level="ok", text=text, hint=gone[0].hint)
        for error in gone if wanted else []:
            yield of_error(subject, error, level="warning")
        yield from _plain_http(subject, here.manager.services.endpoints(manifest))


def _credential(here: Installation, ref: SecretRef) -> SandboxerError | None:
    """Why a key is certainly not there."""
    try:
        reference = parse_reference(ref.ref, what="a secret's reference")
    except Invalid as error:
        return error
    if isinstance(reference, EnvReference | FileReference):
        return missing(reference, here.environment)
    if isinstance(reference, CommandReference):
        program = reference.argv[0]
        if shutil.which(program, path=here.environment.get("PATH")) is None:
            return NotConfigured(f"{program} cannot be found", hint=f"install {program}, or write its whole path")
    elif here.settings.openbao.address is None:
        return NotConfigured(f"no OpenBao is configured for {reference}", hint="set BAO_ADDR, or openbao.address")
    return None


def _plain_http(subject: str, addresses: Mapping[str, str]) -> Iterator[Finding]:
    from sandboxer.http import parse_base_url

    for name, address in addresses.items():
        if "://" not in address:
            continue  # a word of the provider's own, like the name of an environment
        try:
            base = parse_base_url(address, what=f"the endpoint {name}")
        except Invalid as error:
            yield of_error(subject, error, level="warning")
            continue
        if base.scheme == "http" and not base.loopback:
            text = f"the endpoint {name} is plain http: the key can be read on its way to {base.authority}"
            yield Finding(subject=subject, level="warning", text=text, hint="use an https address")


def openbao(here: Installation) -> Iterator[Finding]:
    settings = here.settings.openbao
    if settings.address is None:
        yield Finding(subject="openbao", level="ok", text="off (no address is set)")
        return
    from sandboxer.secrets.openbao import examine as examine_login

    try:
        login = login_of(settings, here.environment)
        text = examine_login(settings, here.environment, Deadline(LOOK_SECONDS), login=login)
    except SandboxerError as error:
        yield of_error("openbao", error, level="error")
    else:
        yield Finding(subject="openbao", level="ok", text=text)
    yield from _plain_http("openbao", {"openbao.address": settings.address})


def private(here: Installation) -> Iterator[Finding]:
    """Files with values in them that others may read."""
    config = here.paths.config / "config.yaml"
    neighbours = (here.settings.state_hub, here.settings.fin_hub)
    own = here.settings.api.token if "SANDBOXER_API_TOKEN" not in here.environment else None
    files = {config} if own or any(neighbour.token for neighbour in neighbours) else set()
    references = [ref for settings in here.settings.extensions.values() for ref in settings.secrets.values()]
    for ref in references:
        if ref.ref.startswith("file:"):
            files.add(expand(ref.ref.removeprefix("file:"), here.environment.get("HOME")))
    for file in sorted(files):
        try:
            others = stat.S_IMODE(file.stat().st_mode) & 0o077
        except OSError:
            continue  # said above, of the credentials
        if others:
            text = f"others may read {file}, which holds a secret"
            yield Finding(subject="secrets", level="warning", text=text, hint=f"run `chmod 600 {file}`")
