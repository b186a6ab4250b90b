"""profiles and extensions: what there is to ask for, and what serves it."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from sandboxer.cli.options import Json, installation
from sandboxer.cli.output import emit, say, table, wants_json
from sandboxer.manager.establish.candidates import profile_extensions
from sandboxer.models import Manifest, Profile

ProfileId = Annotated[str, typer.Argument(metavar="PROFILE", help="Such as profile.native.")]
ExtensionId = Annotated[str, typer.Argument(metavar="EXTENSION", help="Such as ext.native.")]


def profiles_list(json: Json = False) -> None:
    """List the profiles."""
    with installation() as here:
        found = here.manager.profiles()
        if wants_json(json):
            emit({"profiles": [msgspec.to_builtins(profile) for profile in found]})
            return
        table(
            ["PROFILE", "VERSION", "BACKEND", "TTL", "TITLE"],
            [[p.id, p.version, _backend(p), str(p.ttl.default or "never"), p.title] for p in found],
            empty="no profiles",
        )


def _backend(profile: Profile) -> str:
    return ", ".join(profile_extensions(profile))


def profiles_show(profile_id: ProfileId, json: Json = False) -> None:
    """Show one profile: its inputs, lifetimes, options."""
    with installation() as here:
        _whole(msgspec.to_builtins(here.manager.profile(profile_id)), as_json=wants_json(json))


def profiles_validate(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE...", help="Files; default: every profile.")
    ] = None,
    json: Json = False,
) -> None:
    """Check profiles: types, keys, lifetimes, and their options against the extension."""
    with installation() as here:
        valid = here.manager.validate_profiles(files or [])
        if wants_json(json):
            emit({"profiles": [{"id": profile.id, "version": profile.version} for profile in valid]})
            return
        for profile in valid:
            say(f"{profile.id} {profile.version} is valid")


def extensions_list(json: Json = False) -> None:
    """List the extensions and what each can do."""
    with installation() as here:
        documents = [_manifest(here.manager.capabilities(m.id), m) for m in here.manager.manifests()]
        if wants_json(json):
            emit({"extensions": documents})
            return
        table(
            ["EXTENSION", "VERSION", "ISOLATION", "PRICING", "CAPABILITIES", "TITLE"],
            [_row(document) for document in documents],
            empty="no extensions",
        )


def _row(document: dict[str, Any]) -> list[str]:
    capabilities = " ".join(document["capabilities"])
    isolation = document["isolation"]["class"]
    return [
        document["id"], document["version"], isolation, document["pricing_model"], capabilities, document["title"],
    ]  # fmt: skip


def extensions_show(extension_id: ExtensionId, json: Json = False) -> None:
    """Show one extension: its capabilities, options and the notes on its isolation."""
    with installation() as here:
        manifest = here.manager.manifest(extension_id)
        document = _manifest(here.manager.capabilities(extension_id), manifest)
        document["options_schema"] = here.manager.options_schema(extension_id)
        _whole(document, as_json=wants_json(json))


def _manifest(capabilities: Any, manifest: Manifest) -> dict[str, Any]:
    return {**msgspec.to_builtins(manifest), "capabilities": list(capabilities)}


def _whole(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit(document)
        return
    import yaml

    plain = json_module.loads(json_module.dumps(document))
    say(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100).rstrip())
