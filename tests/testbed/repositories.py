"""Example repositories with a compose file, sound and broken, made of the local base image only.

Each function writes one into a directory (made if need be) and gives that directory back. All images have full names,
which podman insists on. Services end at once on SIGTERM unless that is the point. No service uses busybox's wget: the
static one crashes on some machines.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

from tests.testbed.image import BASE

COMPOSE_FILE = "compose.yaml"

_SERVE = """\
#!/bin/sh
# answers with the greeting, and with every file below /www
trap 'exit 0' TERM INT
mkdir -p /www
echo "${GREETING:-hello}" > /www/index.html
hostname > /www/hostname
httpd -f -p 8080 -h /www & wait $!
"""
_STORE = """\
#!/bin/sh
# something like a database: its data is in a volume, and it takes a moment until it is healthy
trap 'exit 0' TERM INT
date >> /data/starts
touch /tmp/ready
while :; do sleep 1000 & wait $!; done
"""
_IDLE = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $$!; done"


def web_and_db(
    directory: Path,
    *,
    port: int = 8080,
    address: str = "127.0.0.1",
    greeting: str = "hello",
    container_name: str | None = None,
) -> Path:
    """A web service built here, published on `address`:`port` (8080 inside), and a healthy db with a named volume.

    The environment or `.env` may set GREETING and WEB_PORT. With `container_name` the web service has that fixed name.
    """
    fixed = f"\n    container_name: {container_name}" if container_name else ""
    _write(
        directory,
        f"""\
services:
  web:{fixed}
    build: .
    image: localhost/sbx-example-web:1
    environment:
      GREETING: "${{GREETING:-{greeting}}}"
    ports:
      - "{address}:${{WEB_PORT:-{port}}}:8080"
    depends_on:
      db:
        condition: service_healthy
  db:
    image: {BASE}
    command: ["sh", "/srv/store.sh"]
    volumes:
      - data:/data
      - ./db:/srv:ro
    healthcheck:
      test: ["CMD", "test", "-f", "/tmp/ready"]
      interval: 1s
      timeout: 2s
      retries: 5
volumes:
  data: {{}}
""",
    )
    _add(directory, "Dockerfile", f'FROM {BASE}\nCOPY serve.sh /serve.sh\nEXPOSE 8080\nCMD ["sh", "/serve.sh"]\n')
    _add(directory, "serve.sh", _SERVE)
    _add(directory, "db/store.sh", _STORE)
    _add(directory, "README.md", "An example.\n")
    _add(directory, ".dockerignore", ".git\n")
    return directory


def minimal(directory: Path) -> Path:
    """One idle service called `main`, nothing built or published: the quickest to bring up."""
    return _write(directory, f"services:\n  main:\n    image: {BASE}\n    command: {_shell(_IDLE)}\n")


def with_programs(directory: Path, *programs: str) -> Path:
    """One idle service called `main`, whose image has these programs of this machine, with the libraries they need."""
    _write(directory, f"services:\n  main:\n    build: .\n    command: {_shell(_IDLE)}\n")
    for program in programs:
        told = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
        for path in (program, *re.findall(r"(/\S+) \(0x", told)):
            target = directory / "root" / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return _add(directory, "Dockerfile", f"FROM {BASE}\nCOPY root/ /\nWORKDIR /work\n")


def exits(directory: Path, *, code: int = 3) -> Path:
    """`main` idles, `job` ends at once with the code."""
    minimal(directory)
    job = _shell(f"echo giving up >&2; exit {code}")
    return _more(directory, f"  job:\n    image: {BASE}\n    command: {job}\n")


def missing_image(directory: Path) -> Path:
    """An image that is nowhere; pulling it fails at once."""
    return _write(directory, "services:\n  main:\n    image: docker.io/library/sbx-no-such-image:1\n")


def bad_yaml(directory: Path) -> Path:
    """A compose file that is no YAML."""
    return _write(directory, "services:\n  main: [unclosed\n    image: x\n")


def broken_build(directory: Path) -> Path:
    """A Dockerfile whose RUN fails."""
    _write(directory, "services:\n  main:\n    build: .\n    image: localhost/sbx-example-broken:1\n")
    return _add(directory, "Dockerfile", f'FROM {BASE}\nRUN ["sh", "-c", "echo no luck >&2; exit 9"]\n')


def unhealthy(directory: Path) -> Path:
    """A service that runs, and whose health check always fails."""
    minimal(directory)
    check = '      test: ["CMD", "false"]\n      interval: 1s\n      timeout: 1s\n      retries: 2\n'
    return _more(directory, f"    healthcheck:\n{check}")


def never_healthy(directory: Path) -> Path:
    """A service whose health check has not come to an answer for an hour."""
    minimal(directory)
    check = '      test: ["CMD", "false"]\n      interval: 1s\n      timeout: 1s\n      retries: 3600\n'
    return _more(directory, f"    healthcheck:\n{check}")


def fixed_name(directory: Path, *, container_name: str = "sbx-example-fixed") -> Path:
    """A fixed container_name: a second one on the same engine is refused."""
    minimal(directory)
    return _more(directory, f"    container_name: {container_name}\n")


def ignores_term(directory: Path) -> Path:
    """A service that ignores SIGTERM: down takes as long as its stop time-out."""
    stubborn = _shell("trap '' TERM; while :; do sleep 1; done")
    return _write(directory, f"services:\n  main:\n    image: {BASE}\n    command: {stubborn}\n")


def owned_files(directory: Path, *, owner: int = 0) -> Path:
    """A container that writes files of this owner, in folders nobody else may enter, below the repository."""
    script = "mkdir -p /out/deep/er && echo data > /out/deep/er/file && chmod -R go-rwx /out/deep"
    script += f" && chown -R {owner}:{owner} /out/deep && touch /out/done; {_IDLE}"
    (directory / "out").mkdir(parents=True, exist_ok=True)
    return _write(
        directory,
        f"services:\n  main:\n    image: {BASE}\n    command: {_shell(script)}\n    volumes:\n      - ./out:/out\n",
    )


def _write(directory: Path, compose: str) -> Path:
    return _add(directory, COMPOSE_FILE, compose)


def _more(directory: Path, compose: str) -> Path:
    path = directory / COMPOSE_FILE
    return _write(directory, path.read_text() + compose)


def _add(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return directory


def _shell(script: str) -> str:
    return json.dumps(["sh", "-c", script])
