"""Multipart forms, as the toolbox takes and gives them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

BOUNDARY: Final = "fake-daytona-boundary"
_NAME: Final = re.compile(rb'[;\s]name="([^"]*)"')
_FILE: Final = re.compile(rb'filename="([^"]*)"')


def fields(content_type: str, body: bytes) -> dict[str, bytes]:
    """The fields of a form by name. Raises ValueError for what is none."""
    found = re.search(r'boundary="?([^";]+)"?', content_type)
    if found is None or not content_type.startswith("multipart/form-data"):
        raise ValueError("not a form")
    mark = b"--" + found[1].encode()
    taken: dict[str, bytes] = {}
    at = body.index(mark)
    while (after := body.index(b"\r\n", at)) and not body.startswith(mark + b"--", at):
        ahead = body.index(b"\r\n\r\n", after)
        name = _NAME.search(body, after, ahead)
        at = body.index(b"\r\n" + mark, ahead)
        if name is None:
            raise ValueError("a part without a name")
        taken[name[1].decode()] = body[ahead + 4 : at]
        at += 2
    return taken


def form(parts: Sequence[tuple[str, str, bytes, str]]) -> bytes:
    """A form of (name, file name, content, content type)."""
    made = bytearray()
    for name, file, content, kind in parts:
        made += f"--{BOUNDARY}\r\nContent-Disposition: form-data; name={name!r}; filename={file!r}\r\n".replace(
            "'", '"'
        ).encode()
        made += f"Content-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content + b"\r\n"
    return bytes(made) + f"--{BOUNDARY}--\r\n".encode()
