"""The verbs of credits and usage."""

from __future__ import annotations

from collections.abc import Sequence

from sandboxer.manager import accounts
from sandboxer.manager.accounts import Table
from sandboxer.manager.money import token_budget
from sandboxer.manager.quotas import consumer_name
from sandboxer.manager.services import Progress, no_progress
from sandboxer.manager.verbs import VerbSet
from sandboxer.payments.credits import Balance
from sandboxer.payments.usage import UsageItem


class MoneyVerbs(VerbSet):
    """How the money stands, and what it went for."""

    def credits(self) -> Balance:
        """How the credits and the budgets stand."""
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
        """Add credits, in US dollars; how they stand then. See `accounts.add_credits`."""
        with self._noted("credits add", amount[:40], actor=actor):
            return accounts.add_credits(
                self.services, amount, actor=actor, note=note, idempotency_key=idempotency_key, progress=progress
            )

    def unsettled(self) -> Sequence[str]:
        """The sandboxes that ended, and are not in the book yet."""
        return accounts.unsettled(self.services)

    def usage(self, *, since: str | None = None, until: str | None = None) -> Sequence[UsageItem]:
        """What sandboxes were used for; see `accounts.instant` for the bounds."""
        found, consumer = accounts.usage(self.services, since=since, until=until), self.principal.consumer
        return [item for item in found if consumer is None or item.consumer == consumer_name(consumer)]

    def usage_table(self, kind: Table, *, since: str | None = None, until: str | None = None) -> str:
        """The same as CSV, or with the columns of FOCUS."""
        return accounts.usage_table(self.services, kind, since=since, until=until)
