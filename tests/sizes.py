"""How big the sweeps are: a smaller size in `make check`, the full one in `make soak`."""

from __future__ import annotations

import os


def scaled(check: int, *, soak: int) -> int:
    """The size of a sweep."""
    return soak if os.environ.get("SANDBOXER_SOAK") else check
