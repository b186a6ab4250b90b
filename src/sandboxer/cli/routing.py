"""route explain: which backend would serve a request, and why; nothing is touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec
import typer

from sandboxer.cli.options import Host, Json, installation
from sandboxer.cli.output import emit, facts, note, say, table, wants_json
from sandboxer.config.paths import working_directory
from sandboxer.models import Request
from sandboxer.names import parse_pairs
from sandboxer.timing import parse_duration


def explain(
    profile: Annotated[str | None, typer.Option(metavar="P", help="The recipe; see `sandboxer profiles list`.")] = None,
    input_: Annotated[
        list[str] | None, typer.Option("--input", metavar="K=V", help="An input of the profile; repeatable.")
    ] = None,
    ttl: Annotated[str | None, typer.Option(metavar="D", help="Its lifetime, such as 30m or 2h.")] = None,
    host: Host = None,
    actor: Annotated[
        str | None, typer.Option(metavar="T:NAME", help="Whose budget: adm:NAME, agt:NAME or atm:NAME.")
    ] = None,
    json: Json = False,
) -> None:
    """Which backend would serve a request now, and why not the others; nothing is touched."""
    with installation() as here:
        request = Request(
            profile=here.settings.defaults.profile if profile is None else profile,
            inputs=dict(parse_pairs(input_ or [], what="input")),
            host=host,
            ttl=None if ttl is None else parse_duration(ttl, what="--ttl"),
        )
        found = here.manager.explain(request, actor=actor, base=working_directory())
        document = msgspec.to_builtins(found)
        if wants_json(json):
            emit(document)
            return
        facts([("profile", found.profile), ("strategy", found.strategy)])
        show_decisions(document["decisions"])
        if found.chosen is not None:
            say(f"a create would begin on {found.chosen.extension}; nothing was touched")
        else:
            refusal: Mapping[str, Any] = found.refusal or {}
            say(f"a create would be refused ({refusal.get('code')}); nothing was touched")
            note(f"hint: {refusal.get('hint')}")


def show_decisions(found: Iterable[Mapping[str, Any]]) -> None:
    """What was decided about each candidate, as a table."""
    table(
        ["EXTENSION", "HOST", "OUTCOME", "USD", "REASON"],
        [
            [one["extension"], one["host"] or "-", one["outcome"], one["estimate_usd"] or "?", one["reason"]]
            for one in found
        ],
        empty="no candidates",
    )
