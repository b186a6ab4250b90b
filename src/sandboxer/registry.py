"""Names to extension classes: the only place that imports adapters."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping
from types import ModuleType

import msgspec

from sandboxer.config.catalog import Catalog
from sandboxer.errors import Invalid, NotFound
from sandboxer.extensions.base import SandboxExtension
from sandboxer.models import Endpoint, ExtensionSettings, Manifest
from sandboxer.models.prepared import prepare

ENTRY_POINTS = "sandboxer.extensions"
"""The entry point group by which a third party's package offers an extension: `ext.name = package.module:Class`.
The class carries its manifest as the attribute `manifest` (a `sandboxer.models.Manifest`)."""


class Registry:
    """Extensions by id. A class is imported when it is first asked for, and made once."""

    def __init__(self, manifests: Catalog[Manifest], settings: Mapping[str, ExtensionSettings] | None = None) -> None:
        self._manifests = manifests
        self._settings = settings or {}
        self._made: dict[str, SandboxExtension] = {}

    def manifest(self, extension_id: str) -> Manifest:
        """The manifest of an extension, with what the operator says of it laid over; raises NotFound or Invalid."""
        try:
            found = self._manifests.get(extension_id)
        except NotFound:
            installed = _entry_point(extension_id)
            if installed is None:
                raise
            found = installed
        return overlaid(found, self._settings.get(extension_id))

    def enabled(self, extension_id: str) -> bool:
        """Whether the operator lets routes use it."""
        settings = self._settings.get(extension_id)
        return settings is None or settings.enabled

    def get(self, extension_id: str) -> SandboxExtension:
        """The extension with this id; raises NotFound, or Invalid when its class cannot be had."""
        made = self._made.get(extension_id)
        if made is None:
            kind = load_class(self.manifest(extension_id))
            if threading.active_count() > 1:
                prepare(kind.__module__.rpartition(".")[0] or kind.__module__)
            made = self._made[extension_id] = kind()
        return made

    def prepare(self, *packages: ModuleType) -> None:
        """Import the built-in adapters whole, and what else (with `packages` of layers above) is imported only when it
        is needed, and make all records ready. To be called before there are many threads."""
        from pkgutil import walk_packages

        from sandboxer import events, extensions, http, payments, selfcheck
        from sandboxer.hosts import trees

        for package in (extensions, selfcheck, events, http, trees, payments, *packages):
            for module in walk_packages(package.__path__, f"{package.__name__}."):
                importlib.import_module(module.name)
        prepare()

    def add(self, extension_id: str, make: Callable[[], SandboxExtension]) -> None:
        """Put an extension in by hand: programs that embed sandboxer, and tests with a fake."""
        self._made[extension_id] = make()

    def manifests(self) -> list[Manifest]:
        """Every manifest: the user's, the built-in ones, and those of installed packages."""
        found = {manifest.id: manifest for manifest, _ in self._manifests.all()}
        for name in _entry_point_names():
            if name not in found and (manifest := _entry_point(name)) is not None:
                found[name] = manifest
        return [overlaid(found[key], self._settings.get(key)) for key in sorted(found)]


def overlaid(manifest: Manifest, settings: ExtensionSettings | None) -> Manifest:
    """A manifest with an operator's settings laid over it. Pure."""
    if settings is None:
        return manifest
    endpoints = dict(manifest.endpoints)
    for name, address in settings.endpoints.items():
        known = endpoints.get(name, Endpoint())
        endpoints[name] = msgspec.structs.replace(known, default=address)
    return msgspec.structs.replace(
        manifest,
        secrets={**manifest.secrets, **settings.secrets},
        endpoints=endpoints,
        options={**manifest.options, **settings.options},
        prices=settings.prices or manifest.prices,
        max_ttl=manifest.max_ttl if settings.max_ttl is None else settings.max_ttl,
        max_live=manifest.max_live if settings.max_live is None else settings.max_live,
    )


def load_class(manifest: Manifest) -> type[SandboxExtension]:
    """The class that a manifest names; raises Invalid saying why it cannot be used."""
    module_name, _, class_name = manifest.class_.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        raise Invalid(
            f"{manifest.id}: {manifest.class_} cannot be imported: {error}",
            hint="install the package that has it, or correct `class` in the manifest",
        ) from error
    except AttributeError:
        raise Invalid(
            f"{manifest.id}: {module_name} has no {class_name}", hint="correct `class` in the manifest"
        ) from None
    if not (isinstance(found, type) and issubclass(found, SandboxExtension)):
        raise Invalid(f"{manifest.id}: {manifest.class_} is not a SandboxExtension", hint="see docs/extension-sdk.md")
    return found


def _entry_point_names() -> list[str]:
    from importlib.metadata import entry_points

    return sorted(point.name for point in entry_points(group=ENTRY_POINTS))


def _entry_point(extension_id: str) -> Manifest | None:
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS, name=extension_id):
        manifest = getattr(point.load(), "manifest", None)
        if not isinstance(manifest, Manifest) or manifest.id != extension_id:
            raise Invalid(
                f"the installed extension {extension_id} carries no manifest of that id",
                hint="its author sets the class attribute `manifest`; see docs/extension-sdk.md",
            )
        return manifest
    return None
