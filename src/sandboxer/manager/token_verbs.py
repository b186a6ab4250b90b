"""The verbs of tokens and of the audit: who may, and who did."""

from __future__ import annotations

from collections.abc import Sequence

from sandboxer.manager import accounts, tokens
from sandboxer.manager.verbs import VerbSet
from sandboxer.models import AuditEntry
from sandboxer.timing import parse_time


class TokenVerbs(VerbSet):
    """Who may use the HTTP API, and what was changed by whom."""

    def create_token(self, wanted: tokens.TokenRequest) -> tokens.NewToken:
        """Make a token of the HTTP API; see `tokens.create`."""
        with self._noted("tokens create", wanted.name) as known:
            made = tokens.create_token(self.services, wanted)
            known.append(made.id)
            return made

    def list_tokens(self) -> Sequence[tokens.TokenDocument]:
        """All tokens; never the tokens themselves."""
        return tokens.list_tokens(self.services)

    def revoke_token(self, text: str) -> tokens.TokenDocument:
        """End a token, at once on every server; see `tokens.revoke`."""
        with self._noted("tokens revoke", text) as known:
            ended = tokens.revoke_token(self.services, text)
            known.append(ended.id)
            return ended

    def audit(self, *, since: str | None = None) -> Sequence[AuditEntry]:
        """What was changed, and by whom, oldest first; see `accounts.instant` for `since`."""
        start = None if since is None else accounts.instant(since, now=self.services.clock(), what="since")
        return [entry for entry in self.services.audit.entries() if start is None or parse_time(entry.at) >= start]
