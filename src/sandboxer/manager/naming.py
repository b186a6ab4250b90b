"""Name and label a sandbox: which names may be had, and the changes of a record that exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from sandboxer.errors import Conflict, NotFound
from sandboxer.manager.services import Services
from sandboxer.models import Consumer, Grant, Sandbox
from sandboxer.names import MIN_PREFIX, check_labels, check_name
from sandboxer.state import State
from sandboxer.store.base import Change, OtherRecords, holds_name

_ENDING = frozenset({State.DESTROYING, State.DESTROYED})


class NameClaim(NamedTuple):
    """Whose sandbox is to have a name, what the one who asks may see, and the sandbox that goes for it (`without`)."""

    consumer: Consumer
    grant: Grant
    without: str | None = None


def check_name_is_free(name: str | None, others: OtherRecords, claim: NameClaim) -> None:
    """Raises Conflict when another sandbox holds the name; which one, only its own consumer and the operator learn.
    None is always free."""
    holder = None if name is None else others.by_name(name)
    if holder is None or not holds_name(holder) or holder.id == claim.without:
        return
    if not claim.grant.everything and holder.consumer != claim.consumer:
        raise Conflict(f"the name {name!r} is taken", hint="choose another name")
    raise Conflict(
        f"the name {name!r} is taken by sandbox {holder.id}",
        hint=f"choose another name, or `sandboxer destroy {holder.id}`",
        sandbox_id=holder.id,
    )


def check_name_hides_nobody(name: str | None, others: OtherRecords, claim: NameClaim) -> None:
    """Raises Conflict when the name is the beginning of another sandbox's id, which it would stand for. Who sees only a
    consumer's hears nothing of the others': by such names one could spell out all their ids. (To who sees both, such a
    text means neither.)"""
    whose = None if claim.grant.everything else claim.consumer
    hidden = None if name is None or len(name) < MIN_PREFIX else others.by_beginning(name, consumer=whose)
    if hidden is not None and hidden.id != claim.without:
        raise Conflict(
            f"the name {name!r} is the beginning of another sandbox's id, which it could be taken for",
            hint="choose another name",
        )


def rename(services: Services, sandbox_id: str, name: str, *, grant: Grant) -> Sandbox:
    """Give a sandbox a name, in place of the one it may have; see `RecordVerbs.rename`."""
    check_name(name)

    def change(record: Sandbox | None, others: OtherRecords) -> Change:
        now = _living(record, sandbox_id)
        claim = NameClaim(now.consumer, grant)
        check_name_is_free(name, others, claim)
        check_name_hides_nobody(name, others, claim)
        # what is asked for again, by `recreate`, is what it is called now
        asked = msgspec.structs.replace(now.request, name=name)
        return _changed(now, msgspec.structs.replace(now, name=name, request=asked))

    return services.store.update(sandbox_id, change) or services.current(sandbox_id)


def label(services: Services, sandbox_id: str, changes: Mapping[str, str | None]) -> Sandbox:
    """Set labels of a sandbox, and take away those whose value is None; see `RecordVerbs.label`."""
    check_labels({key: value or "" for key, value in changes.items()})

    def change(record: Sandbox | None, _others: OtherRecords) -> Change:
        now = _living(record, sandbox_id)
        labels = check_labels(relabelled(now.labels, changes))
        asked = msgspec.structs.replace(now.request, labels=labels)
        return _changed(now, msgspec.structs.replace(now, labels=labels, request=asked))

    return services.store.update(sandbox_id, change) or services.current(sandbox_id)


def relabelled(labels: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """The labels after the changes: a value is set, None takes the label away. Pure."""
    after = {**labels, **changes}
    return {key: value for key, value in after.items() if value is not None}


def _living(record: Sandbox | None, sandbox_id: str) -> Sandbox:
    if record is None:
        raise NotFound(f"no sandbox {sandbox_id!r}", hint="run `sandboxer list --all`")
    if record.state in _ENDING:
        raise Conflict(
            f"sandbox {record.id} is {record.state}",
            hint="only one that lives can be renamed or labelled; `sandboxer list` shows them",
            sandbox_id=record.id,
        )
    return record


def _changed(before: Sandbox, after: Sandbox) -> Change:
    return Change(record=after if after != before else None)
