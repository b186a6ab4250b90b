"""Show the logs of the containers of a stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sandboxer.errors import BackendError, NotFound
from sandboxer.extensions.base import Context
from sandboxer.extensions.compose_ssh import argv, client, engine
from sandboxer.extensions.compose_ssh.handle import ComposeHandleData, from_handle
from sandboxer.hosts.base import Command, Streams
from sandboxer.models import Handle


class ComposeLogs:
    """Logs of services."""

    def logs(
        self, handle: Handle, streams: Streams, ctx: Context, *, service: str | None, follow: bool, tail: int | None
    ) -> None:
        """The engine's logs; with several containers each line begins with its service's name."""
        sandbox = from_handle(handle)
        containers = client.containers(sandbox, ctx)
        chosen = [c for c in containers if service is None or c.service == service]
        if not chosen and service is not None:
            names = ", ".join(sorted({c.service for c in containers})) or "none at all"
            raise NotFound(f"there is no service {service!r} in this sandbox", hint=f"it has: {names}")
        if len(chosen) == 1:
            _show(argv.logs(sandbox, chosen[0].id, follow=follow, tail=tail), streams, sandbox, ctx)
        elif follow and chosen:
            pairs = [(_title(container, chosen), container.id) for container in chosen]
            _show(argv.follow(sandbox, pairs, tail=tail), streams, sandbox, ctx)
        else:
            for container in chosen:
                prefix = f"{_title(container, chosen)} | ".encode()
                out, err = LinePrefixer(prefix, streams.stdout), LinePrefixer(prefix, streams.stderr)
                words = argv.logs(sandbox, container.id, follow=False, tail=tail)
                _show(words, Streams(stdout=out.write, stderr=err.write), sandbox, ctx)
                out.finish()
                err.finish()


def _show(words: list[str], streams: Streams, sandbox: ComposeHandleData, ctx: Context) -> None:
    code = ctx.host.stream(Command(argv=words), streams, ctx.deadline)
    if code:
        raise BackendError(
            f"the container engine could not show the logs (exit code {code})",
            hint=f"try `{argv.engine_of(sandbox)} logs` on the host",
        )


def _title(container: engine.Container, among: Sequence[engine.Container]) -> str:
    alone = sum(1 for other in among if other.service == container.service) == 1
    return container.service if alone else f"{container.service}-{container.number}"


class LinePrefixer:
    """Passes lines on with something before each."""

    def __init__(self, prefix: bytes, sink: Callable[[bytes], None]) -> None:
        self._prefix, self._sink, self._rest = prefix, sink, b""

    def write(self, data: bytes) -> None:
        """Whole lines go on at once; the rest waits for its end."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if lines:
            self._sink(b"".join(self._prefix + line + b"\n" for line in lines))

    def finish(self) -> None:
        """The last line, if it has no end of its own."""
        if self._rest:
            self._sink(self._prefix + self._rest + b"\n")
            self._rest = b""
