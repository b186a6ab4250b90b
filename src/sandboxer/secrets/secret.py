"""A value that does not appear in text."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex

from sandboxer import masking


class Secret:
    """A value that does not appear in text: str, repr and formatting show only that there is one, and it cannot be
    copied, pickled or encoded. As long as it lives, no error of ours says its value."""

    __slots__ = ("__weakref__", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        masking.watch(self)

    def reveal(self) -> str:
        """The value, for the one call that needs it."""
        return self._value

    @property
    def fingerprint(self) -> str:
        """The beginning of a digest of the value: enough to tell two apart, and too little to guess one by."""
        from hashlib import sha256  # 7 ms that only providers' credentials pay

        return sha256(self._value.encode()).hexdigest()[:8]

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "Secret(...)"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """What pickling and copying ask for. Raises TypeError."""
        raise TypeError("a secret is not stored")
