"""An installation whose secrets are canaries, and all that its commands say."""

from __future__ import annotations

from pathlib import Path

from tests.cli.running import Answer, Command
from tests.security.canaries import Canaries, in_files
from tests.security.echo import ECHOED, EchoServer
from tests.testbed.openbao import OpenBao

ROOT = Path(__file__).parents[2]
LOGGED = """\
import logging, os
logging.basicConfig(level=logging.DEBUG, filename=os.environ["DEBUG_LOG"], format="%(name)s %(message)s")
"""
"""Read by every Python that is started: the logs of all libraries, in full."""
MANIFEST = """\
id: ext.echo
version: 1.0.0
class: tests.security.echo:EchoExtension
isolation: {class: remote}
pricing_model: metered
self_hosted: false
prices: {as_of: "2026-11-21", source: the test, vcpu_hour: {usd: "0.05"}}
endpoints: {api: {variable: ECHO_API_URL}}
secrets:
"""
PROFILE = """\
version: 1.0.0
extension: ext.echo
ttl: {default: 1h, max: 4h, failed: 30m}
pricing_model: metered
inputs:
  token: {type: string, secret: true}
"""


class Scene:
    """An installation whose references lead to canaries, and all that its commands said."""

    def __init__(self, root: Path, *, canaries: Canaries | None = None) -> None:
        self.root = root
        self.canaries = canaries or Canaries()
        self.planted: set[Path] = set()
        self.said: list[tuple[str, Answer]] = []
        self.log = root / "debug.log"
        site = root / "site"
        site.mkdir(parents=True)
        (site / "sitecustomize.py").write_text(LOGGED)
        self.command = Command(root, more={"PYTHONPATH": f"{site}:{ROOT}", "DEBUG_LOG": str(self.log)})

    def set(self, **environment: str) -> None:
        """Further environment of its commands."""
        self.command.environment.update(environment)

    def plant(self, path: str, text: str, *, mode: int = 0o600) -> Path:
        """A file that holds a canary: the search leaves it out."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        self.planted.add(file)
        return file

    def write(self, path: str, text: str) -> None:
        """A file without one."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def run(self, *words: str, debug: bool = False) -> Answer:
        """A command, whose words are kept; with `debug` it shows the trace of a bug."""
        answer = self.command(*words, stdin=b"", seconds=60, **({"SANDBOXER_DEBUG": "1"} if debug else {}))
        self.said.append((" ".join(words), answer))
        return answer

    def well(self, *words: str) -> Answer:
        """A command that goes well."""
        answer = self.run(*words)
        assert answer.status == 0, (words, answer)
        return answer

    def leaks(self) -> list[str]:
        """Every place in which a canary is found."""
        found = [
            f"{name} said by `{words}`"
            for words, answer in self.said
            for name in self.canaries.hits((answer.stdout + answer.stderr).encode())
        ]
        return found + in_files(self.canaries, self.root, planted=self.planted)

    def reference(self, kind: str, channel: str, bao: OpenBao, *, value: str | None = None) -> str:
        """A reference to a new canary."""
        value = self.canaries.new(channel) if value is None else value
        name = channel.upper().replace(".", "_")
        if kind == "env":
            self.set(**{name: value})
            return f"env:{name}"
        if kind == "file":
            return f"file:{self.plant(f'planted/{name}', value)}"
        if kind == "openbao":
            bao.put(f"ci/{channel}", key=value)
            return f"openbao:secret/ci/{channel}#key"
        held = self.plant(f"planted/{name}", value)
        program = self.plant(f"planted/{name}.sh", f"#!/bin/sh\necho {value} >&2\ncat {held}\n", mode=0o700)
        return f"cmd:{program} route find 'e2b key'"


def yaml_secrets(references: dict[str, str], *, indent: int) -> str:
    """References as YAML, one a line."""
    return "".join(f"{' ' * indent}{name}: {{ref: {reference!r}}}\n" for name, reference in references.items())


def profiles(scene: Scene, references: dict[str, str]) -> None:
    """A profile for each way in which a create goes."""
    leaks = ("well", "leak-handle", "leak-base64", "leak-argv", "leak-output", "leak-log")
    for mode in (*ECHOED, *leaks):
        secrets = "secrets:\n" + yaml_secrets(references, indent=2) if references else ""
        text = f"id: profile.echo-{mode}\n{PROFILE}options: {{mode: '{mode}'}}\n{secrets}"
        scene.write(f"config/profiles/profile.echo-{mode}.yaml", text)


def small(root: Path, echo: EchoServer, bao: OpenBao, channel: str) -> Scene:
    """A scene with one key."""
    scene = Scene(root)
    scene.write("config/extensions/ext.echo.yaml", MANIFEST + yaml_secrets({"K": "env:K"}, indent=2))
    scene.write("config/config.yaml", f"hosts: {{local: {{work_dir: {root}/work}}}}\n")
    profiles(scene, {})
    scene.set(K=scene.canaries.new(channel), ECHO_API_URL=echo.url)
    scene.well("credits", "add", "5")
    return scene
