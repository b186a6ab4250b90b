"""What runs and lies inside a sandbox of the fake Daytona: the toolbox behind its proxy."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any, Final

from tests.fakes.daytona import forms
from tests.fakes.daytona.documents import instant, refused
from tests.fakes.daytona.sessions import Sessions, Shell
from tests.fakes.sandbox_fs import SandboxFS
from tests.fakes.server import ErrorReply, Reply, Request

EXECUTE_SECONDS: Final = 360.0
_OUT: Final = b"\x01\x01\x01"


class Toolbox:
    """One sandbox's. `program` is the shell that commands are given to; `old`: as the open server of June 2026."""

    def __init__(self, box: SandboxFS, *, program: str, old: bool) -> None:
        self._box, self._program, self._old = box, program, old
        self.sessions = Sessions(box)
        self.logs = b""

    def answer(self, request: Request, path: str) -> Reply:
        """Serve a request for a path of this toolbox."""
        words = path.strip("/").split("/")
        name = "_".join(["do", request.method.lower(), *words[:2]]).replace("-", "_")
        handler = getattr(self, name, None)
        if handler is None or (self._old and words in (["work-dir"], ["files", "upload-v2"])):
            raise ErrorReply(Reply(status=404, body=b"404 page not found", headers={"content-type": "text/plain"}))
        reply: Reply = handler(request, words[2:])
        return reply

    # -- about itself ---------------------------------------------------------------------------------------------

    def do_get_work_dir(self, request: Request, rest: list[str]) -> Reply:
        """Where commands run."""
        return Reply(json={"dir": self._box.home})

    def do_get_user_home_dir(self, request: Request, rest: list[str]) -> Reply:
        """The user's home."""
        return Reply(json={"dir": self._box.home})

    def do_get_version(self, request: Request, rest: list[str]) -> Reply:
        """Of the toolbox."""
        return Reply(json={"version": "v0.190.0" if self._old else "v0.226.1"})

    # -- processes ------------------------------------------------------------------------------------------------

    def do_post_process_execute(self, request: Request, rest: list[str]) -> Reply:
        """A text for the shell, which reads it as its input; both outputs in one string, bad bytes replaced."""
        asked = request.json()
        command = asked.get("command")
        if not isinstance(command, str) or not command.strip():
            raise _bad(request, "command cannot be empty or whitespace-only")
        env = None if self._old else asked.get("envs")
        try:
            process = self._box.start([self._program], env=env, cwd=asked.get("cwd"), stdin=True, merged=True)
        except FileNotFoundError as error:
            return Reply(json={"exitCode": -1, "result": f"chdir {error.filename}: no such file or directory"})
        try:
            out, _ = process.communicate(command.encode(), float(asked.get("timeout") or EXECUTE_SECONDS))
            code = process.wait()
        except TimeoutError:
            raise refused(request, 408, "command execution timeout", source="DAYTONA_DAEMON") from None
        finally:
            process.close()
        return Reply(json={"code" if self._old else "exitCode": code, "result": out.decode("utf-8", "replace")})

    def do_post_process_code_run(self, request: Request, rest: list[str]) -> Reply:
        """Python only."""
        asked = request.json()
        code, out = self._box.run(["python3", "-c", asked["code"]], timeout=float(asked.get("timeout") or 60))
        return Reply(json={"exitCode": code, "result": out.decode("utf-8", "replace"), "artifacts": {"charts": []}})

    def do_post_process_session(self, request: Request, rest: list[str]) -> Reply:
        """A new session, or something for one."""
        if not rest:
            name = request.json().get("sessionId")
            if not isinstance(name, str) or not name:
                raise _bad(request, "session ID is required")
            if not self.sessions.open(name):
                raise refused(request, 409, "session already exists", source="DAYTONA_DAEMON")
            return Reply(status=201)
        shell = self._session(request, rest[0])
        if rest[1:] == ["exec"]:
            return self._session_exec(request, shell)
        if len(rest) == 4 and rest[1] == "command" and rest[3] == "input":
            self.sessions.send(rest[2], request.json()["data"])
            return Reply(status=204)
        raise ErrorReply(Reply(status=404, body=b"404 page not found"))

    def _session_exec(self, request: Request, shell: Shell) -> Reply:
        asked = request.json()
        number = self.sessions.run(shell, asked["command"])
        if asked.get("runAsync") or asked.get("async"):
            return Reply(status=202, json={"cmdId": number})
        code = self.sessions.wait(number, EXECUTE_SECONDS)
        out, err = self.sessions.output(number)
        return Reply(json={"cmdId": number, "exitCode": code, "output": out + err, "stdout": out, "stderr": err})

    def do_get_process_session(self, request: Request, rest: list[str]) -> Reply:
        """Sessions, one of them, one of its commands, or its logs."""
        if not rest:
            return Reply(json=[self._shown(shell) for shell in self.sessions.all()])
        if rest == ["entrypoint"]:
            return Reply(json={"sessionId": "entrypoint", "commands": []})
        if rest == ["entrypoint", "logs"]:
            return self._log(request, self.logs.decode("utf-8", "replace"), "")
        shell = self._session(request, rest[0])
        if len(rest) == 1:
            return Reply(json=self._shown(shell))
        if rest[1] != "command" or len(rest) < 3 or rest[2] not in shell.commands:
            raise refused(request, 404, "command not found", source="DAYTONA_DAEMON")
        if rest[3:] == ["logs"]:
            return self._log(request, *self.sessions.output(rest[2]))
        return Reply(json=self._command(shell, rest[2]))

    def do_delete_process_session(self, request: Request, rest: list[str]) -> Reply:
        """End one."""
        if not self.sessions.close("/".join(rest)):
            raise refused(request, 404, "session not found", source="DAYTONA_DAEMON")
        return Reply(status=204)

    def _session(self, request: Request, name: str) -> Shell:
        shell = self.sessions.get(name)
        if shell is None:
            raise refused(request, 404, "session not found", source="DAYTONA_DAEMON")
        return shell

    def _shown(self, shell: Shell) -> dict[str, Any]:
        return {"sessionId": shell.name, "commands": [self._command(shell, number) for number in shell.commands]}

    def _command(self, shell: Shell, number: str) -> dict[str, Any]:
        code = self.sessions.code(number)
        return {"id": number, "command": shell.commands[number], **({} if code is None else {"exitCode": code})}

    def _log(self, request: Request, out: str, err: str) -> Reply:
        """Apart for clients that say that they are new, else one text with marks."""
        if request.headers.get("x-daytona-sdk-version"):
            return Reply(json={"stdout": out, "stderr": err, "output": out + err})
        marked = (_OUT + out.encode() if out else b"") + (b"\x02\x02\x02" + err.encode() if err else b"")
        return Reply(body=marked, headers={"content-type": "text/plain"})

    # -- files ----------------------------------------------------------------------------------------------------

    def do_get_files(self, request: Request, rest: list[str]) -> Reply:
        """The entries of a directory."""
        where = self._there(request, request.param("path") or self._box.home)
        if not where.is_dir():
            raise _bad(request, "not a directory")
        return Reply(json=[_file(entry) for entry in sorted(where.iterdir())])

    def do_get_files_info(self, request: Request, rest: list[str]) -> Reply:
        """One file."""
        return Reply(json=_file(self._there(request, request.param("path") or "")))

    def do_get_files_download(self, request: Request, rest: list[str]) -> Reply:
        """Its bytes."""
        where = self._there(request, request.param("path") or "")
        if where.is_dir():
            raise _bad(request, "path must be a file")
        return Reply(body=where.read_bytes(), headers={"content-type": "application/octet-stream"})

    def do_post_files_bulk_download(self, request: Request, rest: list[str]) -> Reply:
        """Several, as parts of a form; each that fails as a part that says why."""
        parts = []
        for path in request.json()["paths"]:
            try:
                data = self._there(request, path).read_bytes()
                parts.append(("file", path, data, "application/octet-stream"))
            except (ErrorReply, OSError):
                said = json.dumps({"message": "file not found", "statusCode": 404, "code": "FILE_NOT_FOUND"})
                parts.append(("error", path, said.encode(), "application/json"))
        kind = f"multipart/form-data; boundary={forms.BOUNDARY}"
        return Reply(body=forms.form(parts), headers={"content-type": kind})

    def do_post_files_bulk_upload(self, request: Request, rest: list[str]) -> Reply:
        """`files[N].path` and then `files[N].file`."""
        try:
            taken = forms.fields(request.headers.get("content-type", ""), request.body)
        except ValueError as error:
            raise _bad(request, f"invalid multipart form: {error}") from None
        for name, path in taken.items():
            if name.endswith(".path"):
                self._write(path.decode(), taken[name.removesuffix("path") + "file"])
        return Reply(status=200)

    def do_post_files_upload_v2(self, request: Request, rest: list[str]) -> Reply:
        """One, as a form or as it is."""
        path, kind = request.param("path") or "", request.headers.get("content-type", "")
        data = forms.fields(kind, request.body)["file"] if kind.startswith("multipart/") else request.body
        self._write(path, data)
        return Reply(json={"name": Path(path).name, "path": path, "type": "file"})

    def do_post_files_folder(self, request: Request, rest: list[str]) -> Reply:
        """A directory."""
        where = self._box.path(request.param("path") or "")
        where.mkdir(parents=True, exist_ok=True)
        where.chmod(int(request.param("mode") or "0755", 8))
        return Reply(status=201)

    def do_post_files_move(self, request: Request, rest: list[str]) -> Reply:
        """Another name."""
        source = self._there(request, request.param("source") or "")
        source.rename(self._box.path(request.param("destination") or ""))
        return Reply(status=200)

    def do_post_files_permissions(self, request: Request, rest: list[str]) -> Reply:
        """Another mode."""
        where = self._there(request, request.param("path") or "")
        if mode := request.param("mode"):
            where.chmod(int(mode, 8))
        return Reply(status=200)

    def do_delete_files(self, request: Request, rest: list[str]) -> Reply:
        """Remove one; a directory only if it is said."""
        where = self._there(request, request.param("path") or "")
        if where.is_dir() and request.param("recursive") != "true":
            raise _bad(request, "cannot delete directory without recursive flag")
        shutil.rmtree(where) if where.is_dir() else where.unlink()
        return Reply(status=204)

    def _write(self, path: str, data: bytes) -> None:
        where = self._box.path(path)
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(data)

    def _there(self, request: Request, path: str) -> Path:
        where = self._box.path(path)
        if not path or not where.exists():
            raise refused(request, 404, f"file not found: {path}", source="DAYTONA_DAEMON", code="FILE_NOT_FOUND")
        return where


def _bad(request: Request, message: str) -> ErrorReply:
    return refused(request, 400, message, source="DAYTONA_DAEMON")


def _file(where: Path) -> dict[str, Any]:
    found = where.stat()
    return {
        "name": where.name,
        "path": str(where),
        "isDir": where.is_dir(),
        "size": found.st_size,
        "mode": stat.filemode(found.st_mode),
        "permissions": f"{found.st_mode & 0o7777:04o}",
        "modTime": instant(found.st_mtime),
        "modifiedAt": instant(found.st_mtime),
        "owner": "daytona",
        "group": "daytona",
    }
