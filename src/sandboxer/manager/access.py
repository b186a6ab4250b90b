"""Tell who acts: which sandboxes they see, what they may do, and what the audit notes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from sandboxer.errors import Conflict, Denied, Internal, Interrupted, NotFound, SandboxerError
from sandboxer.manager.services import Services
from sandboxer.masking import masked
from sandboxer.models import AuditEntry, Consumer, Grant, RecordSummary, Request, Sandbox
from sandboxer.names import ID, MIN_PREFIX, new_id, parse_actor, plain_actor_name
from sandboxer.state import LIVE, State
from sandboxer.store.base import holds_name
from sandboxer.timing import rfc3339

MAX_AUDIT_TEXT: Final = 200
"""How much of a text that a caller chose is kept in the audit, in characters."""


class Principal:
    """One who asks, for one request or command: what they may do, and what was noted of what they did.

    `origin` is the door (`cli`, `http`); `actor` is what the audit calls them where neither their token nor what they
    ask for says. `silent`: what they do was noted when somebody asked for it."""

    def __init__(
        self,
        *,
        grant: Grant | None = None,
        origin: str = "cli",
        actor: str | None = None,
        address: str | None = None,
        silent: bool = False,
    ) -> None:
        self.grant = grant or Grant()
        self.origin = origin
        self.actor = self.grant.consumer or actor
        self.address = address
        self.silent = silent
        self.noted = False

    @property
    def consumer(self) -> Consumer | None:
        """Whose sandboxes alone they see; None: everybody's. Raises Denied for who is nobody and may not see all."""
        if self.grant.everything:
            return None
        if self.grant.consumer is None:
            raise Denied("this token is for no consumer", hint="make another one with --consumer agt:NAME")
        kind, name = parse_actor(self.grant.consumer)
        return Consumer(actor=kind, name=name)  # type: ignore[arg-type]  # parse_actor admits only the three types

    def note(
        self, services: Services, action: str, target: str | None, outcome: str, *, actor: str | None = None
    ) -> None:
        """Write a line of the audit."""
        self.noted = True
        if self.silent:
            return
        services.audit.append(
            AuditEntry(
                at=rfc3339(services.clock()) or "",
                actor=_shown(self.grant.consumer or actor or self.actor or operator_actor(services)),
                action=action,
                target=None if target is None else _shown(target),
                outcome=outcome,
                from_=self.origin,
                address=self.address,
                token=self.grant.token,
            )
        )

    @contextmanager
    def change(
        self, services: Services, action: str, target: str | None, *, actor: str | None = None
    ) -> Iterator[list[str]]:
        """Note a change, and what came of it. What is appended to the list it gives is the target, once it is known."""
        known = [] if target is None else [target]
        with self.failure(services, action, known, actor=actor):
            yield known
        self.note(services, action, known[-1] if known else None, "ok", actor=actor)

    @contextmanager
    def failure(
        self, services: Services, action: str, target: Sequence[str], *, actor: str | None = None
    ) -> Iterator[None]:
        """Note an error, if there is one, of the last of `target`: for what goes on after a change was noted."""
        try:
            yield
        except BaseException as error:
            outcome = Internal.code if isinstance(error, Exception) else Interrupted.code
            outcome = error.code if isinstance(error, SandboxerError) else outcome
            self.note(services, action, target[-1] if target else None, outcome, actor=actor)
            raise


def operator_actor(services: Services) -> str:
    """Who it is that works at the command line, such as `adm:ops`."""
    if services.settings.defaults.actor is not None:
        return services.settings.defaults.actor
    user = services.environment.get("USER") or services.environment.get("LOGNAME") or _login()
    return f"adm:{plain_actor_name(user)}"


def _login() -> str:
    """The user's name where no variable tells it, as under systemd and in tmux."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return "unknown"


def _shown(text: str) -> str:
    """A text that a caller chose, fit to be kept: without secrets, bounded, and of characters that can be written."""
    return masked(text)[:MAX_AUDIT_TEXT].encode("utf-8", "replace").decode()


def find_sandbox(services: Services, principal: Principal, text: str) -> Sandbox:
    """The record that a text means, of those that show themselves to the principal. Raises NotFound or Conflict.

    One that is another's is answered like one that is not there: the same words, after the same look."""
    consumer = principal.consumer
    if consumer is None:
        return services.resolve(text)
    if ID.fullmatch(text):  # no name looks like an id
        record = services.store.get(text)
        if record is not None and record.consumer == consumer:
            return record
        if record is not None:
            services.store.get(new_id())  # what is looked for in vain takes this long
        raise _nothing(text)

    def may_be_meant(record: RecordSummary | Sandbox) -> bool:
        return record.consumer == consumer and (record.name == text or record.id.startswith(text))

    own = services.store.list(ended=True, only=may_be_meant)  # also where a live one is meant: it takes as long
    found = matching(text, [record for record in own if record.state != State.DESTROYED]) or matching(text, own)
    if not found:
        raise _nothing(text)
    if len(found) > 1:
        ids = ", ".join(record.id for record in found[:5])
        raise Conflict(f"{text!r} means more than one sandbox: {ids}", hint="give more characters of the id")
    return found[0]


def matching(text: str, records: Sequence[Sandbox]) -> Sequence[Sandbox]:
    """The records, of these (oldest first), that a name or the beginning of an id means: several when it is not clear.

    A name means who holds it, else the last one that had it."""
    named = [record for record in records if record.name == text]
    holding = [record for record in named if record.state in LIVE and holds_name(record)] or named
    begun = [record for record in records if len(text) >= MIN_PREFIX and record.id.startswith(text)]
    living = [record for record in begun if record.state in LIVE]
    if len(living) == 1:
        begun = living
    return list({record.id: record for record in [*holding[-1:], *begun]}.values())


def _nothing(text: str) -> NotFound:
    hint = "list what there is; give an id, at least 4 characters of one, or a name"
    return NotFound(f"no sandbox {text[:80]!r}", hint=hint)


def check_profile_allowed(grant: Grant, profile: str) -> None:
    """Raises Denied for a profile that is not among those the grant names."""
    if grant.profiles and profile not in grant.profiles:
        raise Denied(
            f"this token is not for profile {profile[:80]!r}",
            hint=f"its profiles: {', '.join(grant.profiles)}",
        )


def consumer_name(consumer: Consumer) -> str:
    """A consumer as budgets and quotas name it, such as `agt:builder`."""
    return f"{consumer.actor}:{consumer.name}"


def create_action(request: Request) -> str:
    """What the audit calls a create: one of a snapshot is a restore."""
    return "create" if request.snapshot is None else "restore"


class VerbSet:
    """Verbs over `services`, as `principal` may use them."""

    def __init__(self, services: Services, principal: Principal | None = None) -> None:
        self.services = services
        self.principal = principal or Principal()

    def _find(self, text: str) -> Sandbox:
        return find_sandbox(self.services, self.principal, text)

    def _noted(self, action: str, target: str | None, *, actor: str | None = None) -> AbstractContextManager[list[str]]:
        return self.principal.change(self.services, action, target, actor=actor)

    @contextmanager
    def _changing(self, action: str, text: str) -> Iterator[str]:
        """Note a change of one sandbox; its id."""
        with self._noted(action, text) as known, self._naming(text) as found:
            known.append(found)
            yield found

    @contextmanager
    def _naming(self, text: str) -> Iterator[str]:
        """The id that a text means; errors that name no other sandbox name this one: who asked by a name, or by the
        beginning of an id, is told which it was."""
        found = self._find(text).id
        try:
            yield found
        except SandboxerError as error:
            error.sandbox_id = error.sandbox_id or found
            raise
