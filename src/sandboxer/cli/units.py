"""install-units: what has `expire` run every five minutes, by systemd or by cron."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from sandboxer.cli.options import Apply, Json, installation
from sandboxer.cli.output import emit, note, say, wants_json
from sandboxer.config.paths import working_directory
from sandboxer.errors import Denied, Invalid
from sandboxer.store import private_files

NAME = "sandboxer-expire"
TIMER = """\
[Unit]
Description=End sandboxes that are over, every five minutes

[Timer]
OnCalendar=*:0/5
AccuracySec=15s
Persistent=true

[Install]
WantedBy=timers.target
"""


Directory = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Where the units go; else the machine's for root, and the user's own."),
]


def install_units(directory: Directory = None, apply: Apply = False, json: Json = False) -> None:
    """Show a systemd unit with its timer, and the line of a crontab that does the same; --apply writes the units."""
    with installation() as here:
        settings = {"SANDBOXER_DATA_DIR": str(here.paths.data), "SANDBOXER_CONFIG_DIR": str(here.paths.config)}
        words = here.worker("expire", "--apply")
        _check_writable(settings, words)
        usual = unit_directory(here.environment, root=os.geteuid() == 0)
        folder = usual if directory is None else _named(directory)
        texts = {f"{NAME}.service": service(words, settings, here.paths.config / "environment"), f"{NAME}.timer": TIMER}
        units = {folder / name: text for name, text in texts.items()}
        line = crontab(words, settings)
    control = "systemctl" if os.geteuid() == 0 else "systemctl --user"
    following = f"{control} daemon-reload && {control} enable --now {NAME}.timer"
    if folder != usual:  # where systemd does not look
        following = f"{control} link {shlex.join(map(str, units))} && {following}"
    if apply:
        try:
            private_files.make_directories(folder)
            for path, text in units.items():
                _write(path, text)
        except OSError as error:
            raise Denied(
                f"{folder} cannot be written: {error.strerror}", hint="name another one: --directory DIR"
            ) from error
    if wants_json(json):
        shown = [{"path": str(path), "text": text} for path, text in units.items()]
        emit({"units": shown, "crontab": line, "next": following, "applied": apply})
        return
    for path, text in units.items():
        say(f"# {path}" if not apply else f"{path} written")
        if not apply:
            say(text)
    if not apply:
        say("# or a line of a crontab")
        say(line)
        note("nothing was written; do it with: sandboxer install-units --apply")
    note(f"then run: {following}")


def _named(directory: str) -> Path:
    """The directory that was asked for, as systemd has to be told of it. An empty one comes of a variable that is not
    set, and would be the working directory."""
    if not directory:
        raise Invalid("--directory is empty", hint="name a directory, or leave it out")
    return working_directory() / directory


def unit_directory(environment: Mapping[str, str], *, root: bool) -> Path:
    """Where systemd looks for units: the machine's for root, else the user's own. Pure."""
    if root:
        return Path("/etc/systemd/system")
    home = Path(environment.get("HOME") or "~").expanduser()
    return Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "systemd" / "user"


def service(words: Sequence[str], settings: Mapping[str, str], keys: Path) -> str:
    """The unit. `keys`: a file of lines `NAME=VALUE` for what the environment of a shell would hold. Pure."""
    environment = "".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in settings.items())
    return (
        "[Unit]\nDescription=End sandboxes that are over\n\n[Service]\nType=oneshot\n"
        f"{environment}EnvironmentFile=-{str(keys).replace('%', '%%')}\n"
        f"ExecStart={' '.join(_quoted(word.replace('$', '$$')) for word in words)}\n"
    )


def crontab(words: Sequence[str], settings: Mapping[str, str]) -> str:
    """The line of a crontab. Pure."""
    assigned = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    return "*/5 * * * * " + " ".join([*assigned, shlex.join(words)]).replace("%", "\\%")


def _check_writable(settings: Mapping[str, str], words: Sequence[str]) -> None:
    """Raise Invalid for what neither file has a way to write everywhere: a line break would begin a line of its own."""
    for name, value in settings.items():
        if not value.isprintable():
            raise Invalid(
                f"{name} holds a character that cannot be written into a unit or a crontab: {value!a}",
                hint=f"set {name} to a plain path",
            )
    for word in words:
        if not word.isprintable():
            raise Invalid(
                f"a path of this program cannot be written into a unit or a crontab: {word!a}",
                hint="install sandboxer below a plain path",
            )


def _write(path: Path, text: str) -> None:
    """Put a file in the place of what has its name, whatever that is: what runs as its reader is nobody else's to
    write, and a link there is not followed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        private_files.write_all(descriptor, text.encode())
        temporary.replace(path)
    finally:
        private_files.close(descriptor)
        temporary.unlink(missing_ok=True)


def _quoted(word: str) -> str:
    """A word of a unit file: its escapes, and no specifiers."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
