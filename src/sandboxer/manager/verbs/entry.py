"""The verbs by which somebody who types enters a sandbox, or an SSH client does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sandboxer.manager.access import VerbSet

if TYPE_CHECKING:
    from sandboxer.extensions.base import Exec
    from sandboxer.hosts.base import Streams
    from sandboxer.manager.ssh.config import SshConfig
    from sandboxer.timing import Deadline


class EntryVerbs(VerbSet):
    """Enter by SSH: the workspace the way of a consumer, or the inside."""

    def ssh(self, text: str, words: Sequence[str], streams: Streams, *, tty: bool = False) -> int:
        """Enter the way of a consumer; see `ssh.enter`."""
        from sandboxer.manager.ssh.workspace import enter

        with self._changing("ssh", text) as found:
            return enter(self.services, found, words, streams, tty=tty)

    def ssh_config(self, text: str | None, program: Sequence[str]) -> SshConfig:
        """What an SSH client is to be told of one sandbox, or of all; `program` starts `serve_ssh`."""
        from sandboxer.manager.record_filter import RecordFilter, list_records
        from sandboxer.manager.ssh.config import ssh_config

        if text is not None:
            return ssh_config(self.services, [self._find(text)], program, strict=True)
        records = list_records(self.services, self.principal, RecordFilter(labels={}), ended=False, limit=None)
        return ssh_config(self.services, records, program, strict=False)

    def serve_ssh(
        self, text: str, reading: int, writing: int, *, tell: Callable[[str], None], stop: threading.Event
    ) -> None:
        """Serve an SSH client on two pipes; see `ssh_server.serve`. Each of its sessions is an `exec`."""
        from sandboxer.manager import exec as commands
        from sandboxer.manager.ssh.server import serve

        def run(request: Exec, streams: Streams, wanted: Deadline) -> int:
            with self._changing("exec", found):
                return commands.run(self.services, found, request, streams, timeout=None, wanted=wanted)

        with self._changing("ssh", text) as found:
            serve(self.services, found, reading, writing, run=run, tell=tell, stop=stop)
