"""tokens and audit: who may use the HTTP API, and who changed what."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from sandboxer.cli.options import Json, installation
from sandboxer.cli.output import emit, facts, note, say, table, wants_json
from sandboxer.manager.tokens import TokenDocument, TokenRequest
from sandboxer.timing import brief, parse_duration, parse_time, remaining


def tokens_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called in lists.")],
    role: Annotated[str, typer.Option(metavar="read|use|admin", help="Look; also create, use and end; everything.")],
    consumer: Annotated[
        str | None, typer.Option(metavar="T:NAME", help="Whose sandboxes it is for, such as agt:builder.")
    ] = None,
    profile: Annotated[
        list[str] | None, typer.Option(metavar="P", help="The only profile it is for; repeatable.")
    ] = None,
    budget: Annotated[str | None, typer.Option(metavar="USD", help="What it may spend and hold reserved.")] = None,
    ttl: Annotated[
        str | None, typer.Option(metavar="D", help="How long it counts, such as 30d; default: no end.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a token for the HTTP API. It is printed this once."""
    wanted = TokenRequest(
        name=name,
        role=role,
        consumer=consumer,
        profiles=tuple(profile or ()),
        budget=budget,
        ttl=None if ttl is None else parse_duration(ttl, what="--ttl"),
    )
    with installation() as here:
        same = [one.id for one in here.manager.list_tokens() if one.name == name and one.state == "live"]
        made = here.manager.create_token(wanted)
        if wants_json(json):
            emit(msgspec.to_builtins(made))
            return
        facts([("id", made.id), ("token", made.token), ("role", made.role), ("consumer", made.consumer)])
        note("keep it: it is not shown again; from now on the API answers nobody without a token")
        if same:
            note(f"{', '.join(same)} is called {name} too: `sandboxer tokens revoke` wants an id then")


def tokens_list(json: Json = False) -> None:
    """The tokens of the HTTP API, also those that have ended lately; never the tokens themselves."""
    with installation() as here:
        found = here.manager.list_tokens()
        if wants_json(json):
            emit({"tokens": [msgspec.to_builtins(one) for one in found]})
            return
        table(
            ["ID", "NAME", "ROLE", "CONSUMER", "PROFILES", "BUDGET", "STATE", "EXPIRES"],
            [_row(one) for one in found],
            empty="no tokens; `sandboxer tokens create NAME --role use --consumer agt:NAME` makes one",
        )


def _row(one: TokenDocument) -> list[str]:
    ends = None if one.expires_at is None else parse_time(one.expires_at)
    return [
        one.id, one.name, one.role, one.consumer or "-", ",".join(one.profiles) or "all", one.budget or "-", one.state,
        "-" if one.state == "revoked" else remaining(ends),
    ]  # fmt: skip


def tokens_revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="The id of a token, or its name.")], json: Json = False
) -> None:
    """End a token, at once; again is fine."""
    with installation() as here:
        ended = here.manager.revoke_token(token)
        if wants_json(json):
            emit(msgspec.to_builtins(ended))
            return
        say(f"{ended.id} revoked")


def audit_list(
    since: Annotated[
        str | None, typer.Option(metavar="D", help="Only the last so much (7d), or since a time (2027-01-15).")
    ] = None,
    json: Json = False,
) -> None:
    """What was changed, by whom and from where, oldest first."""
    with installation() as here:
        found = here.manager.audit(since=since)
        if wants_json(json):
            emit({"audit": [msgspec.to_builtins(entry) for entry in found]})
            return
        table(
            ["TIME", "WHO", "FROM", "ACTION", "TARGET", "OUTCOME"],
            [
                [brief(entry.at), entry.actor, entry.from_, entry.action, entry.target or "-", entry.outcome]
                for entry in found
            ],
            empty="nothing was changed",
        )
