"""Which function serves which command. Only the command that was asked for is imported: start-up is a feature."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence

import typer

COMMANDS: dict[str, tuple[str, str]] = {
    "create": ("lifecycle:create", "Establish a sandbox and wait until it is ready."),
    "get": ("lifecycle:get", "Show one sandbox."),
    "list": ("lifecycle:list_", "List sandboxes."),
    "destroy": ("lifecycle:destroy", "Take sandboxes away, in whatever state they are."),
    "recreate": ("lifecycle:recreate", "Destroy a sandbox and establish a new one from the same request."),
    "extend-ttl": ("lifecycle:extend_ttl", "Let a sandbox live longer."),
    "exec": ("exec:exec_", "Run a command inside."),
    "cp": ("exec:cp", "Copy files into or out of a sandbox."),
    "logs": ("exec:logs", "Show the logs of a sandbox's services."),
    "expire": ("sweeps:expire", "End the sandboxes whose TTL is over; made for cron."),
    "reconcile": ("sweeps:reconcile", "Settle records and resources against what really is."),
    "doctor": ("admin:doctor", "What is there, what is missing, and what to type to mend it."),
    "serve": ("admin:serve", "Serve the HTTP API."),
    "_work": ("background:work", ""),
    "_relay": ("background:relay", ""),
}
"""Command -> its function below `sandboxer.cli`, and its line in `sandboxer --help`."""

GROUPS: dict[str, tuple[str, dict[str, str]]] = {
    "inspect": ("Look at placement hosts: host.", {"host": "admin:inspect_host"}),
    "profiles": (
        "Recipes: list, show, validate.",
        {
            "list": "catalog:profiles_list",
            "show": "catalog:profiles_show",
            "validate": "catalog:profiles_validate",
        },
    ),
    "extensions": (
        "Backends: list, show.",
        {"list": "catalog:extensions_list", "show": "catalog:extensions_show"},
    ),
    "route": ("Which backend would serve a request, and why: explain.", {"explain": "routing:explain"}),
    "events": (
        "What happened, and whether the State Hub knows: list, flush.",
        {"list": "admin:events_list", "flush": "admin:events_flush"},
    ),
    "credits": (
        "What there is to spend: show, add.",
        {"show": "billing:credits_show", "add": "billing:credits_add"},
    ),
    "tokens": (
        "Who may use the HTTP API: create, list, revoke.",
        {"create": "tokens:tokens_create", "list": "tokens:tokens_list", "revoke": "tokens:tokens_revoke"},
    ),
    "audit": ("What was changed, and by whom: list.", {"list": "tokens:audit_list"}),
    "usage": (
        "What sandboxes were used for and what they cost: list, export.",
        {"list": "billing:usage_list", "export": "billing:usage_export"},
    ),
}


def build(words: Sequence[str]) -> typer.Typer:
    """The program for these words. Only the command that they name is imported; the others are there by name, for
    `--help` and for a mistyped word. Completion looks into all of them."""
    app = typer.Typer(
        help="Establish sandboxes: one command, many backends, nothing left behind.",
        suggest_commands=False,  # the parser does already
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_root)
    verb = words[0] if words else ""
    every = "_SANDBOXER_COMPLETE" in os.environ
    for name, (target, line) in COMMANDS.items():
        function = _load(target) if every or name == verb else _only_named
        app.command(name, hidden=name.startswith("_"), short_help=line)(function)
    for name, (line, commands) in GROUPS.items():
        group = typer.Typer(help=line)
        group.callback()(_group)
        for sub, target in commands.items():
            group.command(sub)(_load(target) if every or name == verb else _only_named)
        app.add_typer(group, name=name)
    return app


def _only_named() -> None:
    """Stands for a command that these words do not call."""


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
    command: Callable[..., object] = getattr(importlib.import_module(f"sandboxer.cli.{module}"), name)
    return command
