"""A target for fuzzers: whatever a stranger writes, the loader answers or says what is wrong with it."""

from __future__ import annotations

import contextlib

from sandboxer.errors import SandboxerError
from sandboxer.extensions.compose_ssh.loader import dump
from tests.extensions.compose.loader.repositories import loaded

_PARTS = ("compose.yaml", "compose.override.yaml", ".env", "b.yaml", "c.env")


def fuzzed(data: bytes) -> None:
    """Load a repository made of `data`: its files stand behind one another, separated by a NUL. Nothing but a
    `SandboxerError` leaves the loader."""
    tree = dict(zip(_PARTS, data.split(b"\0", len(_PARTS) - 1), strict=False))
    with contextlib.suppress(SandboxerError):
        dump(loaded(tree).document)
