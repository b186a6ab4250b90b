"""The directory of one sandbox: how a handle names it, and the marker file with what is known of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sandboxer import document_bounds
from sandboxer.errors import BackendError
from sandboxer.extensions.base import from_handle
from sandboxer.models import Handle, Value
from sandboxer.names import MARKER_FILE

WORKSPACE = "workspace"
STOPPED = "stopped"
"""The key of the marker file that says so."""


class DirectoryHandleData(Value, frozen=True, kw_only=True):
    """What a handle holds."""

    directory: str


def directory_of(handle: Handle) -> Path:
    """The sandbox's directory, there or not. Raises Conflict for a handle of another version."""
    return Path(from_handle(handle, DirectoryHandleData, version=1).directory)


def existing(handle: Handle) -> Path:
    """The sandbox's directory; raises BackendError when it is gone."""
    directory = directory_of(handle)
    if not directory.is_dir():
        raise BackendError("the directory is gone", hint="run `sandboxer reconcile`")
    return directory


def marker(directory: Path) -> Mapping[str, Any]:
    """The marker file; empty when it cannot be read."""
    try:
        with (directory / MARKER_FILE).open("rb") as file:
            labels = document_bounds.decode(file.read(document_bounds.SMALL.size + 1), bounds=document_bounds.SMALL)
    except (OSError, msgspec.DecodeError):
        return {}
    return labels if isinstance(labels, dict) else {}


def write_marker(directory: Path, labels: Mapping[str, Any]) -> None:
    """Write the marker file as a whole: whoever reads meanwhile sees the old one or the new one."""
    fresh = directory / f"{MARKER_FILE}.new"
    fresh.write_text(json.dumps(labels))
    fresh.chmod(0o600)
    fresh.replace(directory / MARKER_FILE)
