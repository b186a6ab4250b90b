"""Where things are (contract §2). Nothing here touches the disk except `data_files`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sandboxer.errors import Invalid


class Paths(NamedTuple):
    """The two directories of an installation."""

    data: Path
    config: Path


def find_paths(environment: Mapping[str, str]) -> Paths:
    """The data and configuration directories that this environment names. Empty variables count as unset, but for HOME.

    Raises Invalid for one that names the data, or where sandboxes go, by a relative path: another directory would then
    be another installation, and what was made here could not be found from there."""
    if "HOME" in environment:
        _check_absolute(environment, "HOME", "your home directory, such as /home/you")
    for variable in ("SANDBOXER_DATA_DIR", "XDG_DATA_HOME"):
        if environment.get(variable):
            _check_absolute(environment, variable, "an absolute path, or unset it")
    home = Path(environment.get("HOME", "~")).expanduser()

    def choose(own: str, xdg: str, default: str) -> Path:
        if environment.get(own):
            return Path(environment[own]).expanduser().absolute()
        if environment.get(xdg):
            return Path(environment[xdg]).expanduser().absolute() / "sandboxer"
        return (home / default / "sandboxer").absolute()

    return Paths(
        data=choose("SANDBOXER_DATA_DIR", "XDG_DATA_HOME", ".local/share"),
        config=choose("SANDBOXER_CONFIG_DIR", "XDG_CONFIG_HOME", ".config"),
    )


def _check_absolute(environment: Mapping[str, str], variable: str, proper: str) -> None:
    value = environment[variable]
    if value.startswith("/") or (variable != "HOME" and (value == "~" or value.startswith("~/"))):
        return
    what = f"{value[:200]!r} is not an absolute path" if value else "is empty"
    raise Invalid(f"{variable} {what}", hint=f"set {variable} to {proper}")


def data_files(kind: str) -> Path:
    """The built-in `profiles` or `extensions`: inside the wheel, or at the top of a checkout."""
    packaged = Path(__file__).parent.parent / "_data" / kind
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / kind


def working_directory() -> Path:
    """Where relative paths start. A directory that has gone is still called by its name: nothing is found in it."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path(os.environ.get("PWD") or "/")
