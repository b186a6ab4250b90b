"""Putting sandboxer inside and running its probe there; what comes back is a stranger's text, and is read as such."""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from sandboxer import document_bounds
from sandboxer.errors import BackendError, NotConfigured
from sandboxer.extensions.base import CanCopy, CanExec, Context, Exec
from sandboxer.hosts.base import Streams
from sandboxer.models import Handle

WORKSPACE: Final = "/workspace"
HOME: Final = posixpath.join(WORKSPACE, ".sandboxer")
PACKAGE: Final = "sandboxer.pyz"
"""sandboxer inside: one file, which Python runs. `python3 /workspace/.sandboxer/sandboxer.pyz` measures again; with
arguments it is the command, as far as that goes without the packages that it needs (`--version` does)."""
MAX_ANSWER: Final = 256 * 1024
"""How many bytes of the probe's answer are taken; it is some 10 KB long."""
_LEFT_OUT: Final = ("api", "testing", "_data")
_TOO_OLD: Final = 78
# What Python runs when it is given the file. Any Python of the last fifteen years can read it, to say it is too old.
_MAIN: Final = f"""\
import sys
if sys.version_info < (3, 11):
    sys.stderr.write("Python %d.%d" % sys.version_info[:2])
    sys.exit({_TOO_OLD})
if sys.argv[1:]:
    from sandboxer.cli.main import main
else:
    from sandboxer.selfcheck.probe import main
sys.exit(main())
"""
# -I and -S: nothing of the sandbox's own environment or packages takes part, and starting is twice as fast.
ARGV: Final = ("python3", "-I", "-S", "-B", posixpath.join(HOME, PACKAGE))


@cache
def package_archive() -> bytes:
    """The package as one runnable file in a tar, readable for anybody: all of it but the HTTP shell and the test
    fakes. Compressed, for it may travel over SSH: 0.3 MB instead of 0.8, 20 ms once a process."""
    import tarfile
    import zipfile

    package = Path(__file__).parent.parent
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py"), _MAIN)
        for path in sorted(package.rglob("*.py")):
            inside = path.relative_to(package)
            if inside.parts[0] not in _LEFT_OUT:
                name = posixpath.join(package.name, inside.as_posix())
                archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=1)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(PACKAGE)
        info.size, info.mode = packed.tell(), 0o644
        packed.seek(0)
        tar.addfile(info, packed)
    return out.getvalue()


def put(extension: CanCopy, handle: Handle, ctx: Context) -> None:
    """Put the package inside, over whatever copy is there."""
    extension.put_archive(handle, HOME, io.BytesIO(package_archive()), ctx)


def ask(extension: CanExec, handle: Handle, targets: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
    """Run the probe, and give its answer. Raises NotConfigured when there is no Python 3.11 inside, BackendError when
    the answer is not one."""
    out, err = bytearray(), bytearray()
    streams = Streams(
        stdin=io.BytesIO(json.dumps(targets).encode()),
        stdout=lambda chunk: out.extend(chunk[: MAX_ANSWER + 1 - len(out)]),
        stderr=lambda chunk: err.extend(chunk[: 4096 - len(err)]),
    )
    code = extension.exec(handle, Exec(argv=ARGV), streams, ctx)
    complaint = _plain(bytes(err))
    if code in (126, 127):
        raise NotConfigured("there is no python3 inside the sandbox, so it cannot check itself", hint=_HINT)
    if code == _TOO_OLD:
        raise NotConfigured(f"the self-check needs Python 3.11 inside the sandbox, not {complaint}", hint=_HINT)
    if code != 0:
        raise BackendError(f"the self-check inside the sandbox ended with {code}: {complaint}", hint=_AGAIN)
    return read_answer(bytes(out), nonce=targets["nonce"])


_HINT: Final = (
    "use `options: {python: true}` (ext.native) or an image with Python 3.11 or newer; or `self_check: false`"
)
_AGAIN: Final = f"create it with --keep-failed, then see what `sandboxer exec ID -- python3 {HOME}/{PACKAGE}` says"


def read_answer(data: bytes, *, nonce: str) -> dict[str, Any]:
    """The probe's answer. Raises BackendError for anything but one JSON object that carries our nonce."""
    try:
        answer = document_bounds.decode(data) if len(data) <= MAX_ANSWER else None
    except msgspec.DecodeError:
        answer = None
    if not isinstance(answer, dict) or answer.get("nonce") != nonce:
        raise BackendError(
            f"the self-check inside the sandbox gave no answer of its own: {_plain(data[:200])!r}", hint=_AGAIN
        )
    return answer


def _plain(data: bytes) -> str:
    """The last line, safe to show."""
    lines = data.decode("utf-8", "replace").strip().splitlines()
    return "".join(c for c in (lines or ["it said nothing"])[-1] if c.isprintable())[:300]
