"""Make the blocks of an OpenSSH configuration by which `ssh`, `scp`, `sftp` and `rsync` land inside sandboxes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sandboxer.config.paths import find_paths
from sandboxer.errors import Conflict, Invalid
from sandboxer.extensions.base import CanExec
from sandboxer.manager.exec import lacks_capability
from sandboxer.manager.services import Services
from sandboxer.models import Sandbox, Value
from sandboxer.names import PREFIX, resource_name
from sandboxer.state import USABLE, State
from sandboxer.store import host_key

USER: Final = "sandbox"
"""The one name to log in with; the user inside is the sandbox's own, whatever it is called there."""
_REACHED: Final = frozenset({*USABLE, State.STOPPED})


class SshHostBlock(Value, frozen=True, kw_only=True):
    """One sandbox: the names that `ssh` is given, and the block."""

    sandbox_id: str
    names: list[str]
    config: str


class SshConfig(Value, frozen=True, kw_only=True):
    """The blocks, the file that holds the host key, and the sandboxes that have no way in."""

    hosts: list[SshHostBlock]
    known_hosts: str
    left_out: list[str]


def ssh_config(services: Services, records: Sequence[Sandbox], program: Sequence[str], *, strict: bool) -> SshConfig:
    """The blocks for `records`; `program` starts our server, the id follows. `strict`: one that has no way in is an
    error, else it is left out."""
    data = find_paths(services.environment).data
    alias = f"sandboxer-{services.store.install_id}"
    known_hosts = _written_key(data, alias)
    hosts, left_out = [], []
    for record in records:
        if isinstance(services.extension(record), CanExec) and record.state in _REACHED:
            hosts.append(_block(record, program, alias=alias, known_hosts=known_hosts))
        elif strict:
            raise _no_way_in(services, record)
        else:
            left_out.append(record.id)
    return SshConfig(hosts=hosts, known_hosts=str(known_hosts), left_out=left_out)


def host_key_of(services: Services) -> str:
    """The private host key of this installation."""
    from sandboxer.hosts.ssh.server_key import new_key

    return host_key.load_or_make(find_paths(services.environment).data, new_key)


def _written_key(data: Path, alias: str) -> Path:
    from sandboxer.hosts.ssh.server_key import known_hosts_line, new_key

    return host_key.write_known_hosts(data, known_hosts_line(alias, host_key.load_or_make(data, new_key)))


def _no_way_in(services: Services, record: Sandbox) -> Exception:
    if not isinstance(services.extension(record), CanExec):
        return lacks_capability(record, "exec, so no program can be run inside for `ssh`")
    return Conflict(
        f"sandbox {record.id} is {record.state}", hint=f"run `sandboxer get {record.id}`", sandbox_id=record.id
    )


def _block(record: Sandbox, program: Sequence[str], *, alias: str, known_hosts: Path) -> SshHostBlock:
    names = [resource_name(record.id), *([PREFIX + record.name] if record.name else [])]
    lines = [
        f"Host {' '.join(names)}",
        f"    User {USER}",
        f"    ProxyCommand {proxy_command([*program, record.id])}",
        f"    HostKeyAlias {alias}",
        f"    UserKnownHostsFile {quoted_path(str(known_hosts))}",
        "    StrictHostKeyChecking yes",
        "    UpdateHostKeys no",
        "    PubkeyAuthentication no",
        "    ForwardAgent no",
        "    ForwardX11 no",
    ]
    return SshHostBlock(sandbox_id=record.id, names=names, config="".join(f"{line}\n" for line in lines))


def proxy_command(words: Sequence[str]) -> str:
    """The words as `ssh` reads them: it replaces what follows a `%`, then a shell has the line. Raises Invalid."""
    line = shlex.join(words)
    _check(line)
    return line.replace("%", "%%")


def quoted_path(path: str) -> str:
    """A path as `ssh` reads one. Raises Invalid for what it has no way to write."""
    _check(path)
    if '"' in path or "\\" in path or "${" in path:
        raise Invalid(
            f"the path {path!r} cannot be written into an SSH configuration",
            hint="set SANDBOXER_DATA_DIR to one without quotation marks, backslashes and ${",
        )
    return '"' + path.replace("%", "%%") + '"'


def _check(text: str) -> None:
    if not all(char.isprintable() for char in text):
        raise Invalid(
            "a path of this installation holds a character that cannot be written into an SSH configuration",
            hint="set SANDBOXER_DATA_DIR and SANDBOXER_CONFIG_DIR to plain paths",
        )
