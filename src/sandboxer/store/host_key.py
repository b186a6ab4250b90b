"""The host key of this installation's SSH server, and the file by which clients know it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from sandboxer.names import new_id
from sandboxer.store import private_files

DIRECTORY: Final = "ssh"
KEY_FILE: Final = "host_key"
KNOWN_HOSTS: Final = "known_hosts"


def load_or_make(data: Path, make: Callable[[], str]) -> str:
    """The private key; made when there is none. Of several who make one at once the first wins, and all have its."""
    directory = data / DIRECTORY
    path = directory / KEY_FILE
    with private_files.refusals("write", path):
        private_files.ensure_directory(directory)
        if not (text := private_files.read_file(path)):
            fresh = _written(directory, make().encode())
            with suppress(FileExistsError):
                os.link(fresh, path, follow_symlinks=False)
            fresh.unlink()
            private_files.flush_directory(directory)
            text = private_files.read_file(path)
    return text.decode("utf-8", "replace")


def write_known_hosts(data: Path, line: str) -> Path:
    """Write the file for clients, unless it says so already; its path."""
    directory = data / DIRECTORY
    path = directory / KNOWN_HOSTS
    with private_files.refusals("write", path):
        if private_files.read_file(path) != line.encode():
            _written(directory, line.encode()).replace(path)
            private_files.flush_directory(directory)
    return path


def _written(directory: Path, data: bytes) -> Path:
    path = directory / f".new-{new_id()}"
    descriptor = private_files.create_private(path, os.O_WRONLY)
    try:
        private_files.write_all(descriptor, data)
        os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        private_files.close(descriptor)
    return path
