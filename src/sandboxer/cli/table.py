"""Which function serves which command. Only the command that was asked for is imported: start-up is a feature."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence

import typer

COMMANDS: dict[str, str] = {
    "create": "sandboxer.cli.lifecycle:create",
    "get": "sandboxer.cli.lifecycle:get",
    "list": "sandboxer.cli.lifecycle:list_",
    "destroy": "sandboxer.cli.lifecycle:destroy",
    "recreate": "sandboxer.cli.lifecycle:recreate",
    "extend-ttl": "sandboxer.cli.lifecycle:extend_ttl",
    "exec": "sandboxer.cli.inside:exec_",
    "cp": "sandboxer.cli.inside:cp",
    "logs": "sandboxer.cli.inside:logs",
    "expire": "sandboxer.cli.sweeping:expire",
    "reconcile": "sandboxer.cli.sweeping:reconcile",
    "doctor": "sandboxer.cli.operations:doctor",
    "serve": "sandboxer.cli.operations:serve",
    "_work": "sandboxer.cli.background:work",
    "_relay": "sandboxer.cli.background:relay",
}
GROUPS: dict[str, tuple[str, dict[str, str]]] = {
    "inspect": ("Look at placement hosts.", {"host": "sandboxer.cli.operations:inspect_host"}),
    "profiles": (
        "Recipes: list, show, validate.",
        {
            "list": "sandboxer.cli.catalog:profiles_list",
            "show": "sandboxer.cli.catalog:profiles_show",
            "validate": "sandboxer.cli.catalog:profiles_validate",
        },
    ),
    "extensions": (
        "Backends: list, show.",
        {"list": "sandboxer.cli.catalog:extensions_list", "show": "sandboxer.cli.catalog:extensions_show"},
    ),
    "events": (
        "What happened, and whether the State Hub knows: list, flush.",
        {"list": "sandboxer.cli.operations:events_list", "flush": "sandboxer.cli.operations:events_flush"},
    ),
}


def build(words: Sequence[str]) -> typer.Typer:
    """The program for these words: with one command when they name one, else with all (help, completion, mistakes)."""
    app = typer.Typer(
        help="Establish sandboxes: one command, many backends, nothing left behind.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_root)
    verb = words[0] if words else ""
    completing = "_SANDBOXER_COMPLETE" in os.environ
    alone = not completing and (verb in COMMANDS or verb in GROUPS)
    for name, target in COMMANDS.items():
        if not alone or name == verb:
            app.command(name, hidden=name.startswith("_"))(_load(target))
    for name, (text, commands) in GROUPS.items():
        if not alone or name == verb:
            group = typer.Typer(help=text, no_args_is_help=True)
            group.callback()(_group)
            for sub, target in commands.items():
                group.command(sub)(_load(target))
            app.add_typer(group, name=name)
    return app


def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        from sandboxer import __version__

        typer.echo(f"sandboxer {__version__}")
        raise typer.Exit


def _group() -> None:
    """Keeps a group a group when it has one command."""


def _load(target: str) -> Callable[..., object]:
    module, _, name = target.partition(":")
    command: Callable[..., object] = getattr(importlib.import_module(module), name)
    return command
