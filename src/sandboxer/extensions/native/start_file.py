"""Write the file that starts a sandbox, again if need be, with the files that it is made with. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from sandboxer.extensions.native.handle import BWRAP, LIBRARIES, SandboxPaths
from sandboxer.extensions.native.host_facts import HostFacts
from sandboxer.extensions.native.options import WORKSPACE, NativeOptions, NativeService

_HERE: Final = Path(__file__).parent / "host"
_ETC: Final = ("passwd", "group", "hosts", "hostname", "nsswitch.conf")
ETC_DESCRIPTORS: Final = dict(zip(range(4, 9), _ETC, strict=True))
"""Generated files of /etc come to bwrap by descriptors: it writes them, which costs less than a mount each."""
Group = tuple[str, str, str]
"""What a control group is set to: directory, file, value. A file name that starts with `?` may be missing."""


@cache
def script(name: str) -> str:
    """The text of host/NAME.sh."""
    return (_HERE / f"{name}.sh").read_text("utf-8")


def start_text(
    paths: SandboxPaths,
    options: NativeOptions,
    facts: HostFacts,
    *,
    owner: int,
    groups: Sequence[Group],
    binds: Sequence[str],
    words: Sequence[str],
    synced: bool,
    trusted: Mapping[str, str],
) -> str:
    """Assignments and functions of quoted words, then the constant text of host/common.sh and host/start.sh.

    `binds` are paths of the host, `words` bwrap's, `trusted` files in the directory with the SHA-256 of each."""
    directories = sorted({directory for directory, _, _ in groups})
    lines = [
        "# Starts this sandbox, again if need be. Made by sandboxer; holds the environment of its services.",
        *_settings(paths, facts, owner=owner, directories=directories, binds=len(binds), trusted=trusted),
        "first=${1-}",
        'put() { printf \'%s\' "$2" >"$dir/$1"; }',
        *_function("files", _files(options)),
        *_function("trusted", _trusted(paths, trusted)),
        *_function("etc", _etc(paths)),
        *_function("limits", [*_limits(directories, groups), "return 0"]),
        *_function(
            "owners", [*(_owners(paths, options, owner=owner, synced=synced) if facts.root else ()), "return 0"]
        ),
        shlex.join(["set", "--", *(binds if facts.root else ()), *words]),
    ]
    return "\n".join(lines) + "\n" + script("common") + script("start")


def _function(name: str, body: Sequence[str]) -> list[str]:
    return [f"{name}() {{", *body, "}"]


def _settings(
    paths: SandboxPaths,
    facts: HostFacts,
    *,
    owner: int,
    directories: Sequence[str],
    binds: int,
    trusted: Mapping[str, str],
) -> list[str]:
    values = {
        "dir": paths.directory,
        "tag": paths.tag,
        "owner": str(owner),
        "mode": "root" if facts.root else "user",
        "cover": facts.cover,
        "cgroups": " ".join(directories),
        "binds": str(binds),
        # what is not ours to write needs no sealing; root's sandboxes cannot write what is root's
        "sealed": "-" if facts.root else facts.bwrap_hash or trusted.get(BWRAP, "-"),
        "libraries": paths.path(LIBRARIES) if BWRAP in trusted and not facts.root else "",
        **{name: facts.tools[name] for name in ("unshare", "mount", "setpriv")},
    }
    return [f"{name}={shlex.quote(value)}" for name, value in values.items()]


def _files(options: NativeOptions) -> list[str]:
    lines = [
        f"put {shlex.quote(f'run/{path}')} {shlex.quote(text)} || return 1" for path, text in generated(options).items()
    ]
    return lines + [f'{{ : >>"$dir"/logs/{name}.log; }} || return 1' for name in options.services]


def _trusted(paths: SandboxPaths, trusted: Mapping[str, str]) -> list[str]:
    lines = []
    for path, digest in trusted.items():
        lines += [
            f"sum=$(sha256sum <{shlex.quote(paths.path(path))}) || return 1",
            f'[ "${{sum%% *}}" = {digest} ] || return 1',
        ]
    return lines


def _etc(paths: SandboxPaths) -> list[str]:
    """Small here-documents sit in a pipe: nobody has to write them."""
    texts = etc(paths)
    return [*(f"exec {fd}<<'EOF'\n{texts[name]}EOF" for fd, name in ETC_DESCRIPTORS.items()), '"$@"']


def _limits(directories: Sequence[str], groups: Sequence[Group]) -> list[str]:
    lines = [f"mkdir -p {shlex.quote(directory)} || return 1" for directory in directories]
    for directory, file, value in groups:
        path = f"{directory}/{file.lstrip('?')}"
        check = f"[ ! -e {shlex.quote(path)} ] || " if file.startswith("?") else ""
        lines.append(f"{check}echo {shlex.quote(value)} >{shlex.quote(path)} || return 1")
    return lines


def _owners(paths: SandboxPaths, options: NativeOptions, *, owner: int, synced: bool) -> list[str]:
    """Lines that give the sandbox's uid what it writes, and let its group pass the directory: the uid must not own it,
    because it holds what root will run again."""
    written = [paths.workspace, paths.path("tmp"), *(paths.path(f"logs/{name}.log") for name in options.services)]
    # the archive of the first start brings its folders as they shall be: see `folders`
    unless_new = "" if synced or options.services else '[ -n "$first" ] || '
    lines = [
        unless_new + shlex.join(["chown", f"{owner}:{owner}", *written]) + " || return 1",
        unless_new + shlex.join(["install", "-d", "-g", str(owner), "-m", "0710", paths.directory]) + " || return 1",
    ]
    if synced:
        # only before anything ran inside: later the tree is as its processes left it
        whole = shlex.join(["chown", "-Rh", f"{owner}:{owner}", paths.workspace])
        lines.append(f'[ -z "$first" ] || {whole} || return 1')
    return lines


def folders(*, owner: int, root: bool, synced: bool) -> dict[str, tuple[int, int, int]]:
    """Path in the directory to mode, uid and gid, as start.sh would make them one by one; "." is the directory itself.
    Who is not root gets them as its own. A tree that was given is left as it is: `_owners` sees to that."""
    made = dict.fromkeys(("tmp", "logs", "run", "run/binds", "run/inside", "run/inside/services"), (0o755, 0, 0))
    if not synced:
        made["workspace"] = (0o755, 0, 0)
    if root:
        made |= {name: (0o755, owner, owner) for name in ("workspace", "tmp") if name in made}
        made["."] = (0o710, 0, owner)
    return made


def etc(paths: SandboxPaths) -> dict[str, str]:
    """Files of /etc inside: one user, one name of the machine."""
    return {
        "passwd": f"sandbox:x:1000:1000:sandbox:{WORKSPACE}:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
        "group": "sandbox:x:1000:\nnogroup:x:65534:\n",
        "hosts": f"127.0.0.1 localhost {paths.name}\n::1 localhost ip6-localhost\n",
        "hostname": f"{paths.name}\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    }


def generated(options: NativeOptions) -> dict[str, str]:
    """Path below run/ to text."""
    made = {"inside/supervise": script("supervise"), "inside/settle": script("settle")}
    return made | {f"inside/services/{name}": _service(service) for name, service in options.services.items()}


def _service(service: NativeService) -> str:
    """A script that becomes the service. The environment is in a file that only this sandbox can read, in no argv."""
    lines = [f"cd {shlex.quote(service.cwd)} || exit 126"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in service.env.items()]
    lines.append(f"exec {shlex.join(service.command)}")
    return "\n".join(lines) + "\n"
