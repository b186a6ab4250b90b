"""Where things are (contract §2). Nothing here touches the disk except `data_files`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Paths(NamedTuple):
    """The two directories of an installation."""

    data: Path
    config: Path


def find_paths(environment: Mapping[str, str]) -> Paths:
    """The data and configuration directories that this environment names. Empty variables count as unset."""
    home = Path(environment.get("HOME") or "~").expanduser()

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
