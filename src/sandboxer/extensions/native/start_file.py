"""Files that a sandbox is made with, and the shell text that runs on hosts."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path
from typing import Final

from sandboxer.extensions.native.handle import SandboxPaths
from sandboxer.extensions.native.options import WORKSPACE, NativeOptions, NativeService

_HERE: Final = Path(__file__).parent / "host"
ETC: Final = ("passwd", "group", "hosts", "hostname", "nsswitch.conf")


@cache
def script(name: str) -> str:
    """The text of host/NAME.sh."""
    return (_HERE / f"{name}.sh").read_text("utf-8")


def etc(place: SandboxPaths) -> dict[str, str]:
    """Files of /etc inside: one user, one name of the machine."""
    return {
        "passwd": f"sandbox:x:1000:1000:sandbox:{WORKSPACE}:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
        "group": "sandbox:x:1000:\nnogroup:x:65534:\n",
        "hosts": f"127.0.0.1 localhost {place.name}\n::1 localhost ip6-localhost\n",
        "hostname": f"{place.name}\n",
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
