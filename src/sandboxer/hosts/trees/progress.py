"""Tell how many bytes of a tree have been sent."""

from __future__ import annotations

from sandboxer.hosts.base import Progress


class ByteProgress:
    """Passes a count of bytes on as text, whenever the text is another one."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._told = progress, ""

    def tell(self, count: int) -> None:
        """So many bytes so far."""
        if self._progress is None:
            return
        text = format_bytes(count)
        if text != self._told:
            self._told = text
            self._progress(text)


def format_bytes(count: float) -> str:
    """`12345678` as `12.3 MB` (powers of ten)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
