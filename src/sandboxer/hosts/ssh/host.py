"""A placement host that is reached by SSH."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandboxer import document_bounds
from sandboxer.errors import BackendError, Denied, SandboxerError, Timeout, Unavailable
from sandboxer.hosts.base import MAX_OUTPUT, Command, Host, HostAddress, Progress, Result, Streams, SyncReport
from sandboxer.hosts.local import DEFAULT_WORK_DIR, LocalHost, check_started, expand_home
from sandboxer.hosts.process import launch
from sandboxer.hosts.process.capture import capture_output
from sandboxer.hosts.process.launch import SHELL_BOOT
from sandboxer.hosts.ssh import scripts
from sandboxer.hosts.ssh.config import (
    SshDestination,
    SshEndpoint,
    SshOptions,
    dump_argv,
    parse_destination,
    parse_dump,
    read_without_client,
    resolve,
)
from sandboxer.hosts.ssh.pool import SshConnectionPool
from sandboxer.models import HostSettings
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    from sandboxer.hosts.ssh.session import RemoteSession

REMOTE_MARGIN: Final = 10.0
"""A remote command ends itself so many seconds after we would have ended it: only a client that is gone lets it."""
_LOOKED_SECONDS: Final = 60.0
"""How long it holds that nobody else may write above a directory."""
_SAFE_PATH = re.compile(r"/[A-Za-z0-9._/-]+")


class SshHost(Host):
    """Commands run in sessions of their own under the login user; connections are opened when they are needed.

    `ssh_config` replaces ~/.ssh/config, `environ` this process's environment (agent, home directory). A connection
    carries eight commands at a time; more open further ones. A dead connection is replaced before a command is sent,
    never after: nothing is run twice.
    """

    def __init__(
        self,
        name: str,
        settings: HostSettings,
        *,
        ssh_config: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        parse_destination(settings.address or name)
        self.name = name
        self.compose = settings.compose
        self.env = dict(settings.env)
        launch.check_env(self.env)
        self._settings = settings
        self._ssh_config = ssh_config
        self._local = LocalHost("local", HostSettings(), environ=environ)
        self._pool = SshConnectionPool(name, self._resolved)
        self._endpoint: SshEndpoint | None = None
        self._facts: tuple[bool, str] | None = None
        self._looked: dict[str, float] = {}

    def connect(self, deadline: Deadline) -> None:
        """See Host."""
        with self._pool.slot(deadline):
            return

    def address(self) -> HostAddress:
        """See Host; `host_key` is None before the first connection."""
        endpoint = self._resolved(Deadline(10))
        place = f"{endpoint.user}@{endpoint.host}"
        return HostAddress(
            kind="ssh",
            host=endpoint.host,
            port=endpoint.port,
            user=endpoint.user,
            command=f"ssh {place}" if endpoint.port == 22 else f"ssh -p {endpoint.port} {place}",
            host_key=self._pool.fingerprint,
        )

    def work_dir(self, deadline: Deadline) -> str:
        """See Host."""
        chosen = self._settings.work_dir or DEFAULT_WORK_DIR
        return chosen if chosen.startswith("/") else expand_home(chosen, self._known_facts(deadline)[1])

    def _missing_rsync(self, deadline: Deadline) -> str:
        if not self._local.has_rsync():
            return "here"
        return "" if self._known_facts(deadline)[0] else f"on {self.name}"

    def stream(self, command: Command, streams: Streams, deadline: Deadline) -> int:
        """See Host. A lost connection raises Unavailable, with outcome `unknown` once the program was started."""
        from sandboxer.hosts.ssh.errors import SessionRefused
        from sandboxer.hosts.ssh.session import RemoteSession

        if deadline.passed:
            raise Timeout(f"there was no time left to run {launch.program_of(command.argv)}", hint="give it longer")
        token = f"sbx-{secrets.token_hex(8)}"
        head = self._header(command, deadline, token=token)
        line = SHELL_BOOT
        if command.tty:
            line, head = self._terminal_line(head, deadline), b""
        else:
            head += command.prelude
        while True:
            with self._pool.slot(deadline) as connection:
                session = RemoteSession(connection, line=line, head=head, token=token, streams=streams, tty=command.tty)
                try:
                    return self._run_session(session, command, deadline)
                except SessionRefused:
                    self._pool.session_refused(connection)  # nothing was sent: another connection may take it
                finally:
                    session.close()

    def _run_session(self, session: RemoteSession, command: Command, deadline: Deadline) -> int:
        from sandboxer.hosts.ssh.errors import SessionRefused
        from sandboxer.hosts.ssh.kill import kill_remote

        try:
            return session.run(deadline)
        except SessionRefused:
            raise
        except BaseException as error:
            ended = kill_remote(session.connection, session.find_leader(), track=command.track)
            if isinstance(error, Timeout):
                raise self._late(command, error, started=bool(session.leader.pid), ended=ended) from None
            raise

    def check_place(self, path: str, deadline: Deadline) -> None:
        """See Host. What was found well is not asked for again for a minute."""
        from sandboxer.hosts.trees import strict_modes

        setting = f"`work_dir` of {self.name} in config.yaml"
        strict_modes.check_utf8(path, host=self.name, setting=setting)
        looked = self._looked.get(path)
        if looked is not None and time.monotonic() - looked < _LOOKED_SECONDS:
            return
        fault = strict_modes.answered(
            self.run([launch.SHELL, "-c", strict_modes.SCRIPT, "sh", launch.anchored(path)], deadline), path, self.name
        )
        if fault is not None:
            user = self.address().user or "root"
            raise strict_modes.refusal(fault, path, host=self.name, user=user, setting=setting)
        self._looked[path] = time.monotonic()

    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        track: str | None = None,
        limit: int = MAX_OUTPUT,
    ) -> Result:
        """See Host."""
        command = Command(argv=argv, env=env or {}, cwd=cwd, track=track)
        return capture_output(self.stream, command, deadline, stdin=stdin, limit=limit)

    def start(self, argv: Sequence[str], deadline: Deadline, *, stdin: bytes = b"", log: str | None = None) -> None:
        """See Host."""
        launch.check_argv(argv)
        words = [launch.SHELL, "-c", launch.START, "sh", launch.anchored(log) if log else "", *argv]
        check_started(self.run(words, deadline, stdin=stdin), argv)

    def end_tracked(self, track: str, deadline: Deadline) -> int:
        """See Host."""
        result = self.run([launch.SHELL, "-c", launch.END_TRACKED, "sh", launch.anchored(track)], deadline)
        count = document_bounds.number(result.text)
        if result.code != 0 or count is None:
            raise BackendError(
                f"some processes on {self.name} do not end: {result.complaint}",
                hint="look at them with ps on the host",
                outcome="unknown",
            )
        return count

    def write_file(self, path: str, data: bytes, deadline: Deadline, *, mode: int = 0o600) -> None:
        """See Host."""
        words = [scripts.WRITE, "sh", launch.anchored(path), f"{mode:o}", str(len(data)), secrets.token_hex(4)]
        result = self.run([launch.SHELL, "-c", *words], deadline, stdin=data)
        if result.code != 0:
            raise self._refused(result, f"{path} could not be written on {self.name}")

    def read_file(self, path: str, deadline: Deadline, *, limit: int = MAX_OUTPUT) -> bytes | None:
        """See Host."""
        result = self.run([launch.SHELL, "-c", scripts.READ, "sh", launch.anchored(path)], deadline, limit=limit)
        if result.code == 0:
            return result.stdout
        if result.stderr.strip().endswith(scripts.ABSENT):
            return None
        raise self._refused(result, f"{path} could not be read on {self.name}")

    def sync(
        self,
        source: Path,
        target: str,
        deadline: Deadline,
        *,
        exclude: Sequence[str] = (),
        gitignore: bool = False,
        progress: Progress | None = None,
    ) -> SyncReport:
        """See Host. rsync's other end is started on this host's own connection, so it is the same verified server.
        The target directory itself takes the mode of `source`."""
        from sandboxer.hosts.trees.sync import TreeCopy, sync_tree

        copy = TreeCopy(source=source, target=target, exclude=exclude, gitignore=gitignore, progress=progress)
        return sync_tree(self, copy, deadline, missing=self._missing_rsync(deadline), local=self._local)

    def close(self) -> None:
        """See Host."""
        self._pool.close()

    def _late(self, command: Command, error: Timeout, *, started: bool, ended: str) -> SandboxerError:
        program = launch.program_of(command.argv)
        if started:
            return Timeout(f"{program} did not end in time on {self.name}, and {ended}", hint=error.hint)
        return Unavailable(
            f"{self.name} did not answer in time when {program} was to be started",
            hint="is the network between us all right?",
            outcome="unknown",
        )

    def _header(self, command: Command, deadline: Deadline, *, token: str) -> bytes:
        left = deadline.left()
        return launch.supervised(
            command.argv,
            env=command.env if command.clean_env else {**self.env, **command.env},
            cwd=command.cwd,
            clean_env=command.clean_env,
            track=command.track,
            seconds=None if left is None else left + REMOTE_MARGIN,
            token=token,
            tty=command.tty,
            keep_fd3=bool(command.tty and command.prelude),
        ) + (command.prelude if command.tty else b"")

    def _terminal_line(self, header: bytes, deadline: Deadline) -> str:
        """The line that runs a header from a file: a terminal would echo it, cut it and interpret it."""
        result = self.run([launch.SHELL, "-c", scripts.KEEP_HEADER], deadline, stdin=header)
        if result.code != 0 or _SAFE_PATH.fullmatch(result.text) is None:
            raise self._refused(result, f"no temporary file could be made on {self.name}")
        remove = f"( {launch.SYSTEM_FIRST}exec rm -f {result.text} )"
        return f"{launch.SHELL} -c 'exec 3<{result.text} && {remove} && {launch.BOOT_FD3}'"

    def _known_facts(self, deadline: Deadline) -> tuple[bool, str]:
        if self._facts is None:
            result = self.run([launch.SHELL, "-c", scripts.FACTS], deadline)
            rsync, _, home = result.stdout.decode("utf-8", "surrogateescape").partition("\n")
            if result.code != 0 or not home.startswith("/"):
                raise self._refused(result, f"the home directory on {self.name} is not known")
            self._facts = (rsync == "rsync", home)
        return self._facts

    def _refused(self, result: Result, what: str) -> SandboxerError:
        message = f"{what}: {result.complaint or f'exit code {result.code}'}"
        hint = f"look at it there: {self.address().command}"
        return (Denied if b"Permission denied" in result.stderr else BackendError)(message, hint=hint)

    def _resolved(self, deadline: Deadline) -> SshEndpoint:
        if self._endpoint is None:
            home = str(Path.home())
            self._endpoint = resolve(
                self.name,
                self._settings,
                ask=lambda place: self._ask(place, deadline, home),
                home=home,
                environ=self._local.environ,
            )
        return self._endpoint

    def _ask(self, place: SshDestination, deadline: Deadline, home: str) -> SshOptions:
        config = str(self._ssh_config) if self._ssh_config is not None else None
        result = self._local.run(dump_argv(place, config=config), deadline)
        if result.code == 127:
            return read_without_client(place, config=config, home=home)
        if result.code != 0:
            raise BackendError(
                f"the ssh configuration cannot be read: {result.complaint}", hint=f"try: ssh -G {place.host}"
            )
        return parse_dump(result.stdout.decode("utf-8", "surrogateescape"))
