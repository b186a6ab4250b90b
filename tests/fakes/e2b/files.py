"""Files of a fake sandbox: envd's HTTP endpoint for their contents, and its service for everything about them."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tests.fakes.e2b.exec import ExecRoutes, refused
from tests.fakes.e2b.state import E2BSandbox, stamp
from tests.fakes.server import ErrorReply, FakeServer, Reply, Request

_FILENAME: Final = re.compile(rb'filename="((?:[^"\\]|\\.)*)"')


class FileRoutes:
    """The files of all sandboxes."""

    def __init__(self, inside: ExecRoutes) -> None:
        self._inside = inside

    def serve(self, server: FakeServer) -> None:
        """Add the routes."""
        server.route("GET", "/files", self._read)
        server.route("POST", "/files", self._write)
        for name in ("Stat", "ListDir", "MakeDir", "Move", "Remove"):
            server.route("POST", f"/filesystem.Filesystem/{name}", getattr(self, f"_{name.lower()}"))

    def _read(self, request: Request) -> Reply:
        sandbox = self._inside.of(request)
        self._inside.uid(request, sandbox)
        name = request.param("path") or ""
        path = sandbox.box.path(name)
        if path.is_dir():
            raise _error(400, f"path '{name}' is a directory")
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise _error(404, f"path '{name}' does not exist") from None
        return Reply(body=data, headers={"content-type": "application/octet-stream"})

    def _write(self, request: Request) -> Reply:
        sandbox = self._inside.of(request)
        self._inside.uid(request, sandbox)
        kind = request.headers.get("content-type", "")
        given = request.param("path") or ""
        body = gzip.decompress(request.body) if request.headers.get("content-encoding") == "gzip" else request.body
        if kind.startswith("multipart/form-data"):
            parts = list(_parts(body, kind))
            names = [given] if given and len(parts) == 1 else [name for name, _ in parts]
            files = [(name, data) for name, (_, data) in zip(names, parts, strict=True)]
        else:
            if not self._inside.envd_is(0, 5, 7):
                raise _error(400, "request Content-Type isn't multipart/form-data")
            if not given:
                raise _error(400, "path is required")
            files = [(given, body)]
        written = []
        for name, data in files:
            path = sandbox.box.path(name)
            if path.is_dir():
                raise _error(400, f"path '{name}' is a directory")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            shown = _absolute(sandbox, name)
            written.append({"path": str(shown), "name": shown.name, "type": "file"})
        return Reply(json=written)

    def _stat(self, request: Request) -> Reply:
        sandbox, path = self._asked(request)
        return Reply(json={"entry": _entry(sandbox, path)})

    def _listdir(self, request: Request) -> Reply:
        sandbox, path = self._asked(request)
        here = sandbox.box.path(str(path))
        if not here.is_dir():
            raise refused("invalid_argument", f"path is not a directory: {path}")
        depth = int(request.json().get("depth") or 1)
        return Reply(json={"entries": [_entry(sandbox, name) for name in _walk(sandbox, path, depth)]})

    def _makedir(self, request: Request) -> Reply:
        sandbox = self._inside.of(request)
        self._inside.uid(request, sandbox)
        path = _absolute(sandbox, str(request.json().get("path", "")))
        here = sandbox.box.path(str(path))
        if here.exists():
            raise refused("already_exists", f"directory already exists: {path}")
        here.mkdir(parents=True)
        return Reply(json={"entry": _entry(sandbox, path)})

    def _move(self, request: Request) -> Reply:
        sandbox, source = self._asked(request, "source")
        target = _absolute(sandbox, str(request.json().get("destination", "")))
        here = sandbox.box.path(str(target))
        here.parent.mkdir(parents=True, exist_ok=True)
        sandbox.box.path(str(source)).rename(here)
        return Reply(json={"entry": _entry(sandbox, target)})

    def _remove(self, request: Request) -> Reply:
        sandbox, path = self._asked(request)
        here = sandbox.box.path(str(path))
        if here.is_dir():
            shutil.rmtree(here)
        else:
            here.unlink()
        return Reply(json={})

    def _asked(self, request: Request, name: str = "path") -> tuple[E2BSandbox, PurePosixPath]:
        sandbox = self._inside.of(request)
        self._inside.uid(request, sandbox)
        path = _absolute(sandbox, str(request.json().get(name, "")))
        if not sandbox.box.path(str(path)).exists() and not sandbox.box.is_directory(str(path)):
            raise refused("not_found", f"file not found: {path}")
        return sandbox, path


def _error(status: int, message: str) -> ErrorReply:
    return ErrorReply(Reply(status=status, json={"code": status, "message": message}))


def _absolute(sandbox: E2BSandbox, path: str) -> PurePosixPath:
    return PurePosixPath(os.path.normpath(os.path.join(sandbox.box.home, path.removeprefix("~/"))))  # noqa: PTH118


def _walk(sandbox: E2BSandbox, path: PurePosixPath, depth: int) -> Iterator[PurePosixPath]:
    for entry in sorted(sandbox.box.path(str(path)).iterdir()):
        yield path / entry.name
        if entry.is_dir() and not entry.is_symlink() and depth > 1:
            yield from _walk(sandbox, path / entry.name, depth - 1)


def _entry(sandbox: E2BSandbox, path: PurePosixPath) -> dict[str, Any]:
    parent: Path = sandbox.box.path(str(path.parent))
    here = parent / path.name if path.name else parent
    if not here.exists() and not here.is_symlink():
        return {"name": path.name, "type": "FILE_TYPE_DIRECTORY", "path": str(path)}  # of the host's programs
    status = here.lstat()
    kind = "SYMLINK" if here.is_symlink() else "DIRECTORY" if here.is_dir() else "FILE"
    told: dict[str, Any] = {
        "name": path.name,
        "type": f"FILE_TYPE_{kind}",
        "path": str(path),
        "size": str(status.st_size),
        "mode": stat.S_IMODE(status.st_mode),
        "permissions": stat.filemode(status.st_mode),
        "owner": sandbox.box.user,
        "group": sandbox.box.user,
        "modifiedTime": stamp(status.st_mtime),
    }
    return {**told, "symlinkTarget": str(here.readlink())} if here.is_symlink() else told


def _parts(body: bytes, kind: str) -> Iterator[tuple[str, bytes]]:
    """Name and contents of each file of a form."""
    match = re.search(r'boundary="?([^";]+)', kind)
    if match is None:
        raise _error(400, "a form without a boundary")
    mark = b"--" + match[1].encode()
    for part in (b"\r\n" + body).split(b"\r\n" + mark)[1:-1]:
        head, _, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = _FILENAME.search(head)
        if name is not None:
            yield name[1].decode().replace('\\"', '"').replace("%22", '"'), data
