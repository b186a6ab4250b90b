"""credits and usage: what there is to spend, and what was spent on what."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import typer

from sandboxer.cli.options import Json, installation
from sandboxer.cli.output import emit, facts, flush, note, put, say, table, wants_json
from sandboxer.errors import Invalid
from sandboxer.payments.credits import Balance
from sandboxer.timing import format_duration

Format = Literal["csv", "json", "focus"]
_FORMATS: dict[str, Format] = {"csv": "csv", "json": "json", "focus": "focus"}

Since = Annotated[
    str | None, typer.Option(metavar="T", help="Only usage after this: 2027-01-15, 2027-01-15T08:00:00Z, or 7d.")
]
Until = Annotated[str | None, typer.Option(metavar="T", help="Only usage that began before this.")]


def credits_show(json: Json = False) -> None:
    """What was added, spent and set aside; the budgets."""
    with installation() as here:
        _balance(here.manager.credits(), as_json=wants_json(json))


def credits_add(
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="US dollars, such as 25 or 0.50.")],
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is, for the book.")] = None,
    actor: Annotated[str | None, typer.Option(metavar="T:NAME", help="Who adds it, such as adm:ops.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="K", help="Asking again with the same key adds nothing more.")
    ] = None,
    json: Json = False,
) -> None:
    """Add credits."""
    with installation() as here:
        balance = here.manager.add_credits(
            amount,
            actor=actor,
            note=note,
            idempotency_key=idempotency_key,
            progress=_told,
        )
        _balance(balance, as_json=wants_json(json))


def _told(_phase: str, text: str) -> None:
    note(text)


def _balance(balance: Balance, *, as_json: bool) -> None:
    if as_json:
        emit(msgspec.to_builtins(balance))
        return
    facts(
        [
            ("available", f"{balance.available_usd} {balance.currency}"),
            ("reserved", balance.reserved_usd),
            ("balance", balance.balance_usd),
            ("spent", balance.spent_usd),
            ("added", balance.added_usd),
        ]
    )
    if balance.budgets:
        say()
        table(
            ["BUDGET OF", "USD", "PER", "SPENT", "RESERVED", "AVAILABLE"],
            [
                [b.consumer, b.usd, b.per or "all", b.spent_usd, b.reserved_usd, b.available_usd]
                for b in balance.budgets
            ],
            empty="",
        )
    if balance.reservations:
        say()
        table(
            ["RESERVED FOR", "CONSUMER", "USD", "SINCE"],
            [[one.sandbox_id, one.consumer, one.usd, one.since] for one in balance.reservations],
            empty="",
        )


def usage_list(since: Since = None, until: Until = None, json: Json = False) -> None:
    """What each sandbox was used for, and what it cost; living ones with what has accrued."""
    with installation() as here:
        found = here.manager.usage(since=since, until=until)
        if wants_json(json):
            emit({"usage": [msgspec.to_builtins(item) for item in found]})
            return
        table(
            ["SANDBOX", "STATE", "EXTENSION", "CONSUMER", "STARTED", "DURATION", "USD", "OVERRUN"],
            [
                [
                    item.sandbox_id, item.state, item.extension_id, item.consumer, item.started_at,
                    format_duration(item.duration_s), item.actual_usd, item.overrun_usd,
                ]
                for item in found
            ],
            empty="no usage",
        )  # fmt: skip


def usage_export(
    format_: Annotated[
        str | None, typer.Option("--format", metavar="csv|json|focus", help="The form (csv). focus: FinOps FOCUS 1.2.")
    ] = None,
    since: Since = None,
    until: Until = None,
    json: Json = False,
) -> None:
    """Usage for a spreadsheet or a FinOps tool, on stdout."""
    as_json = wants_json(json)
    chosen = _format(format_ or ("json" if as_json else "csv"))
    with installation() as here:
        if chosen == "json":
            emit({"usage": [msgspec.to_builtins(item) for item in here.manager.usage(since=since, until=until)]})
            return
        text = here.manager.usage_table(chosen, since=since, until=until)
        if as_json:  # stdout carries one JSON document, whatever is in it
            emit({"format": chosen, "content": text})
            return
        _raw(text)


def _format(text: str) -> Format:
    found = _FORMATS.get(text)
    if found is None:
        raise Invalid(f"--format {text[:40]!r} is not known", hint="use csv, json or focus")
    return found


def _raw(text: str) -> None:
    """As it is: its line ends are part of the format."""
    import sys

    flush()
    put(sys.stdout.buffer, text.encode())
