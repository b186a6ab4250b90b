"""What there is to choose from, and what happened: profiles, extensions, hosts, events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from sandboxer.extensions.base import capabilities
from sandboxer.manager.candidates import check_profile
from sandboxer.manager.quotas import consumer_name
from sandboxer.manager.stale import LOOK_SECONDS
from sandboxer.manager.verbs import VerbSet
from sandboxer.models import Event, Manifest, Profile
from sandboxer.names import check_host
from sandboxer.timing import Deadline


class AdminVerbs(VerbSet):
    """The verbs of profiles, extensions, hosts and events."""

    def profiles(self) -> Sequence[Profile]:
        """Every profile."""
        only = self.principal.grant.profiles
        return [profile for profile, _ in self.services.profiles.all() if not only or profile.id in only]

    def manifests(self) -> Sequence[Manifest]:
        """Every extension's manifest."""
        return self.services.extensions.manifests()

    def capabilities(self, extension_id: str) -> Sequence[str]:
        """What an extension can do besides the life cycle."""
        return capabilities(type(self.services.extensions.get(extension_id)))

    def profile(self, profile_id: str) -> Profile:
        """One profile; raises NotFound, Invalid."""
        return self.services.profiles.get(profile_id)

    def validate_profiles(self, files: Sequence[Path]) -> Sequence[Profile]:
        """Check profiles, their options against the extension's model too; all of them when no files are given."""
        found = [self.services.profiles.read(file) for file in files] if files else list(self.profiles())
        for profile in found:
            check_profile(self.services, profile)
        return found

    def manifest(self, extension_id: str) -> Manifest:
        """One extension's manifest; raises NotFound, Invalid."""
        return self.services.extensions.manifest(extension_id)

    def options_schema(self, extension_id: str) -> dict[str, Any]:
        """The JSON Schema of an extension's options."""
        return msgspec.json.schema(self.services.extensions.get(extension_id).Options)

    def inspect_host(self, name: str) -> dict[str, Any]:
        """What a placement host says of itself; raises Unavailable, Denied."""
        from sandboxer.telemetry import host_telemetry

        deadline = Deadline(LOOK_SECONDS)
        host = self.services.open_host(check_host(name))
        host.connect(deadline)
        return {"host": name, **host_telemetry(host, deadline, engines=True)}

    def events(self, *, limit: int | None = None) -> Sequence[Event]:
        """The events that are still kept, oldest first."""
        consumer = self.principal.consumer
        if consumer is None:
            return self.services.store.events(limit=limit)
        own = [event for event in self.services.store.events() if event.actor == consumer_name(consumer)]
        return own if limit is None else own[max(0, len(own) - limit) :]
