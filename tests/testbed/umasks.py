"""The umask of a part of a test."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """What is made inside is made with this umask."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
