"""Map each command to its function. Only the command that was asked for is imported: start-up is a feature."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    import typer

COMMANDS: dict[str, tuple[str, str]] = {
    "create": ("lifecycle:create", "Establish a sandbox and wait until it is ready."),
    "get": ("lifecycle:get", "Show one sandbox."),
    "list": ("lifecycle:list_", "List sandboxes."),
    "destroy": ("lifecycle:destroy", "Take sandboxes away, in whatever state they are."),
    "recreate": ("lifecycle:recreate", "Destroy a sandbox and establish a new one from the same request."),
    "extend-ttl": ("lifecycle:extend_ttl", "Let a sandbox live longer."),
    "set-ttl": ("lifecycle:set_ttl", "Let a sandbox end that long from now, sooner too."),
    "stop": ("lifecycle:stop", "Keep a sandbox without running it."),
    "start": ("lifecycle:start", "Run a sandbox again that was stopped."),
    "wait": ("records:wait", "Wait until a sandbox is ready, stopped or destroyed."),
    "rename": ("records:rename", "Give a sandbox a name."),
    "label": ("records:label", "Set labels of a sandbox, or take them away."),
    "exec": ("exec:exec_", "Run a command inside."),
    "run": ("run:run", "Run a command in a sandbox of its own, which goes with it."),
    "shell": ("shell:shell", "Open a shell inside."),
    "ssh": ("shell:ssh", "Enter the workspace the way of a consumer."),
    "ssh-config": ("ssh:ssh_config", "Let `ssh`, `scp`, `sftp` and `rsync` land inside."),
    "cp": ("files:cp", "Copy files into or out of a sandbox."),
    "logs": ("exec:logs", "Show the logs of a sandbox's services."),
    "snapshot": ("snapshots:snapshot", "Keep a sandbox's files, to make others of them."),
    "restore": ("snapshots:restore", "Make a new sandbox of a snapshot."),
    "expire": ("sweeps:expire", "End the sandboxes whose TTL is over; made for cron."),
    "reconcile": ("sweeps:reconcile", "Settle records and resources against what really is."),
    "reap-stale": ("sweeps:reap_stale", "Take away what no live record knows, on all hosts and providers."),
    "install-units": ("units:install_units", "What has `expire` run every five minutes: systemd, or cron."),
    "doctor": ("admin:doctor", "What is there, what is missing, and what to type to mend it."),
    "serve": ("admin:serve", "Serve the HTTP API."),
    "_work": ("background:work", ""),
    "_relay": ("background:relay", ""),
    "_ssh-proxy": ("ssh:proxy", ""),
}
"""Command -> its function below `sandboxer.cli`, and its line in `sandboxer --help`."""

GROUPS: dict[str, tuple[str, dict[str, str]]] = {
    "inspect": (
        "Look at placement hosts: host, stale.",
        {"host": "admin:inspect_host", "stale": "sweeps:inspect_stale"},
    ),
    "snapshots": (
        "Files of sandboxes that were kept: list, get, delete, verify.",
        {
            "list": "snapshots:snapshots_list",
            "get": "snapshots:snapshots_get",
            "delete": "snapshots:snapshots_delete",
            "verify": "snapshots:snapshots_verify",
        },
    ),
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


_HELP = "Establish sandboxes: one command, many backends, nothing left behind."
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_PLAIN: dict[str, Any] = {
    "suggest_commands": False,  # the parser does already
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}
_VERSION = "Print the version and exit."
_COMPLETION = {
    "--install-completion": "Install completion for the current shell.",
    "--show-completion": "Show completion for the current shell, to copy it or customize the installation.",
}


def build(words: Sequence[str]) -> click.Command:
    """The program for these words. Only the command that they name is imported, and typer only where they name one: the
    help of the whole would take half of its time. The others are there by name, for `--help` and for a mistyped word;
    completion looks into all of them."""
    if "_SANDBOXER_COMPLETE" in os.environ or not _COMPLETION.keys().isdisjoint(words):
        return _whole()
    program = _overview()
    verb = words[0] if words else ""
    if verb in COMMANDS:
        import typer.main

        target, line = COMMANDS[verb]
        app = typer.Typer(**_PLAIN, add_completion=False, context_settings=_SETTINGS)
        app.command(verb, hidden=verb.startswith("_"), short_help=line)(_load(target))
        program.add_command(typer.main.get_command(app), verb)
    elif verb in GROUPS:
        import typer.main

        program.add_command(typer.main.get_command(_group_app(verb)), verb)
    return program


class _InOrder(click.Group):
    """Shows its commands in the order in which they were added, as typer does."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def _overview() -> click.Group:
    """The names of all commands, for `--help` and for a mistyped word."""
    lines = {name: line for name, (_, line) in COMMANDS.items()} | {name: line for name, (line, _) in GROUPS.items()}
    version = click.Option(["--version"], is_flag=True, expose_value=False, callback=_version, help=_VERSION)
    completion = [
        click.Option([name], is_flag=True, expose_value=False, help=text) for name, text in _COMPLETION.items()
    ]
    return _InOrder(
        help=_HELP,
        no_args_is_help=False,
        params=[version, *completion],
        commands={
            name: click.Command(name, short_help=line, hidden=name.startswith("_")) for name, line in lines.items()
        },
        context_settings=_SETTINGS,
    )


def _version(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        _print_version()


def _print_version() -> NoReturn:
    from sandboxer import __version__

    click.echo(f"sandboxer {__version__}")
    raise click.exceptions.Exit


def _group_app(name: str) -> typer.Typer:
    import typer

    line, commands = GROUPS[name]
    group = typer.Typer(**_PLAIN, add_completion=False, help=line, context_settings=_SETTINGS)
    group.callback()(_group)
    for sub, target in commands.items():
        group.command(sub)(_load(target))
    return group


def _whole() -> click.Command:
    """Every command, and the options of typer's completion."""
    import typer.main

    app = typer.Typer(**_PLAIN, help=_HELP, context_settings=_SETTINGS)

    def root(version: bool = typer.Option(False, "--version", help=_VERSION)) -> None:
        if version:
            _print_version()

    app.callback()(root)
    for name, (target, line) in COMMANDS.items():
        app.command(name, hidden=name.startswith("_"), short_help=line)(_load(target))
    for name in GROUPS:
        app.add_typer(_group_app(name), name=name)
    return typer.main.get_command(app)


def _group() -> None:
    """Keeps a group a group when it has one command."""


def _load(target: str) -> Callable[..., object]:
    module, _, name = target.partition(":")
    command: Callable[..., object] = getattr(importlib.import_module(f"sandboxer.cli.{module}"), name)
    return command
