"""The verbs of whoever runs it: profiles, extensions, hosts, events, credits, usage, tokens and the audit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sandboxer.manager.access import VerbSet, consumer_name
from sandboxer.manager.services import Progress, no_progress
from sandboxer.models import AuditEntry, Event, Manifest, Profile, RecordSummary, Sandbox

if TYPE_CHECKING:
    from sandboxer.manager import tokens
    from sandboxer.manager.sweeps.stale import RebuiltRecords
    from sandboxer.payments.credits import Balance
    from sandboxer.payments.usage import UsageItem

UsageFormat = Literal["csv", "focus"]


class AdminVerbs(VerbSet):
    """The verbs that need no sandbox."""

    # -- what there is to choose from, and what happened ----------------------------------------------------------

    def profiles(self) -> Sequence[Profile]:
        """Every profile."""
        only = self.principal.grant.profiles
        return [profile for profile, _ in self.services.profiles.all() if not only or profile.id in only]

    def manifests(self) -> Sequence[Manifest]:
        """Every extension's manifest."""
        return self.services.extensions.manifests()

    def capabilities(self, extension_id: str) -> Sequence[str]:
        """What an extension can do besides the life cycle."""
        from sandboxer.extensions.base import capabilities

        return capabilities(type(self.services.extensions.get(extension_id)))

    def profile(self, profile_id: str) -> Profile:
        """One profile; raises NotFound, Invalid."""
        return self.services.profiles.get(profile_id)

    def validate_profiles(self, files: Sequence[Path]) -> Sequence[Profile]:
        """Check profiles, their options against the extension's model too; all of them when no files are given."""
        from sandboxer.manager.establish.candidates import check_profile

        found = [self.services.profiles.read(file) for file in files] if files else list(self.profiles())
        for profile in found:
            check_profile(self.services, profile)
        return found

    def manifest(self, extension_id: str) -> Manifest:
        """One extension's manifest; raises NotFound, Invalid."""
        return self.services.extensions.manifest(extension_id)

    def options_schema(self, extension_id: str) -> dict[str, Any]:
        """The JSON Schema of an extension's options."""
        import msgspec

        return msgspec.json.schema(self.services.extensions.get(extension_id).Options)

    def inspect_host(self, name: str) -> dict[str, Any]:
        """What a placement host says of itself, and what our sandboxes use of it; raises Unavailable, Denied."""
        from sandboxer.manager.host_inspection import inspect_host

        return inspect_host(self.services, name)

    def events(self, *, limit: int | None = None) -> Sequence[Event]:
        """The events that are still kept, oldest first."""
        consumer = self.principal.consumer
        if consumer is None:
            return self.services.store.events(limit=limit)
        own = [event for event in self.services.store.events() if event.actor == consumer_name(consumer)]
        return own if limit is None else own[max(0, len(own) - limit) :]

    # -- credits and usage ----------------------------------------------------------------------------------------

    def credits(self) -> Balance:
        """How the credits and the budgets stand."""
        from sandboxer.manager.billing import token_budget

        consumer = self.principal.consumer
        if consumer is None:
            return self.services.credits.show()
        return self.services.credits.show_for(consumer_name(consumer), token=token_budget(self.principal.grant))

    def add_credits(
        self,
        amount: str,
        *,
        actor: str | None = None,
        note: str | None = None,
        idempotency_key: str | None = None,
        progress: Progress = no_progress,
    ) -> Balance:
        """Add credits, in US dollars; how they stand then. Raises Invalid for what is no amount, and Conflict for a key
        that was used for another one. For a key that was used before nothing is added, and `progress` says so."""
        with self._noted("credits add", amount[:40], actor=actor):
            return self._add_credits(amount, actor=actor, note=note, key=idempotency_key, progress=progress)

    def _add_credits(
        self, amount: str, *, actor: str | None, note: str | None, key: str | None, progress: Progress
    ) -> Balance:
        from sandboxer.names import check_key, parse_actor
        from sandboxer.payments.prices import parse_amount
        from sandboxer.timing import rfc3339

        book, usd = self.services.credits, parse_amount(amount)
        who = actor or self.services.settings.defaults.actor
        if who is not None:
            parse_actor(who)
        earlier = None if key is None else book.added_at(check_key(key))
        balance = book.add(usd, note=note, actor=who, key=key)
        if earlier is not None:
            progress("credits", f"nothing was added: the idempotency key was used at {rfc3339(earlier)}")
        return balance

    def unsettled(self) -> Sequence[str]:
        """The sandboxes that ended while something is still set aside for them. Raises what the book raises."""
        from sandboxer.state import State

        found = []
        for held in self.services.credits.open():
            record = self.services.store.get(held.sandbox_id)
            if record is not None and (record.usage is not None or record.state == State.DESTROYED):
                found.append(held.sandbox_id)
        return found

    def usage(self, *, since: str | None = None, until: str | None = None) -> Sequence[UsageItem]:
        """What sandboxes were used for, oldest first, living ones with what has accrued; see `instant` for the bounds.
        Raises Invalid."""
        from sandboxer.payments.usage import usage_item

        now = self.services.clock()
        return [usage_item(record, now=now) for record in self._used(since, until, now)]

    def usage_table(self, kind: UsageFormat, *, since: str | None = None, until: str | None = None) -> str:
        """The same as CSV, or (settled usage only) with the columns of FOCUS."""
        from sandboxer.payments.export import to_csv, to_focus  # csv and what it needs: only an export pays for it

        now = self.services.clock()
        records = self._used(since, until, now)
        return to_csv(records, now=now) if kind == "csv" else to_focus(records, install=self.services.store.install_id)

    def _used(self, since: str | None, until: str | None, now: float) -> list[Sandbox]:
        from sandboxer.payments.usage import touches, within

        consumer = self.principal.consumer
        start = None if since is None else instant(since, now=now, what="since")
        end = None if until is None else instant(until, now=now, what="until")

        def may_be_meant(record: RecordSummary | Sandbox) -> bool:
            if consumer not in (None, record.consumer):
                return False
            return record.usage is None or touches(record.usage, since=start, until=end)

        found = self.services.store.list(ended=True, only=may_be_meant)
        return list(within(found, since=start, until=end, now=now))

    # -- tokens and the audit -------------------------------------------------------------------------------------

    def create_token(self, wanted: tokens.TokenRequest) -> tokens.NewToken:
        """Make a token of the HTTP API; see `tokens.create`."""
        from sandboxer.manager import tokens

        with self._noted("tokens create", wanted.name) as known:
            made = tokens.create_token(self.services, wanted)
            known.append(made.id)
            return made

    def list_tokens(self) -> Sequence[tokens.TokenDocument]:
        """All tokens; never the tokens themselves."""
        from sandboxer.manager import tokens

        return tokens.list_tokens(self.services)

    def revoke_token(self, text: str) -> tokens.TokenDocument:
        """End a token, at once on every server; see `tokens.revoke`."""
        from sandboxer.manager import tokens

        with self._noted("tokens revoke", text) as known:
            ended = tokens.revoke_token(self.services, text)
            known.append(ended.id)
            return ended

    def audit(self, *, since: str | None = None) -> Sequence[AuditEntry]:
        """What was changed, and by whom, oldest first; see `instant` for `since`."""
        from sandboxer.timing import parse_time

        start = None if since is None else instant(since, now=self.services.clock(), what="since")
        return [entry for entry in self.services.audit.entries() if start is None or parse_time(entry.at) >= start]

    def rebuild_records(self) -> RebuiltRecords:
        """Write lost records again from what the backends show; see `stale.rebuild_records`."""
        from sandboxer.manager.sweeps.stale import rebuild_records

        with self._noted("doctor --repair", None):
            return rebuild_records(self.services)


def instant(text: str, *, now: float, what: str) -> float:
    """Unix seconds of a time (`2027-01-15T08:00:00Z`), a day (`2027-01-15`, its first second in UTC), or a duration
    before `now` (`7d`). Raises Invalid."""
    from datetime import UTC, datetime

    from sandboxer.errors import Invalid
    from sandboxer.timing import parse_duration

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        try:
            return now - parse_duration(text)
        except Invalid:
            raise Invalid(
                f"{what} {text[:80]!r} is not a time",
                hint="write it like 2027-01-15, 2027-01-15T08:00:00Z, or 7d for seven days ago",
            ) from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
