"""Show what services wrote, and wait until they have settled."""

from __future__ import annotations

from sandboxer.errors import BackendError, NotFound
from sandboxer.extensions.base import Context
from sandboxer.extensions.native import scripts
from sandboxer.extensions.native.exec import capture
from sandboxer.extensions.native.handle import NativeHandleData
from sandboxer.hosts.base import Command, Streams


def show(
    sandbox: NativeHandleData, streams: Streams, ctx: Context, *, service: str | None, follow: bool, tail: int | None
) -> None:
    """Write the logs of one service or all to the streams. Raises NotFound, BackendError."""
    if service is not None and service not in sandbox.services:
        raise NotFound(
            f"the sandbox has no service {service!r}",
            hint=f"its services: {', '.join(sandbox.services) or 'none'}",
        )
    if not sandbox.services:
        return
    names = [service] if service is not None else sandbox.services
    words = scripts.tail(sandbox.paths, names, lines=tail, follow=follow)
    code = ctx.host.stream(Command(argv=words, track=sandbox.paths.track), streams, ctx.deadline)
    if code != 0:
        raise BackendError("the logs could not be read", hint="run `sandboxer get ID` to see whether it is there")


def settle(sandbox: NativeHandleData, ctx: Context) -> None:
    """Wait until the services have settled. Raises BackendError with the end of the log of one that has not."""
    paths, wanted = sandbox.paths, str(int(sandbox.settle * 100))
    words = ["sh", "/run/sandboxer/settle", wanted, *sandbox.services]
    done = capture(sandbox, words, ctx)
    if done.code == 0 and done.text == "settled":
        return
    word, _, rest = done.text.partition(" ")
    name, _, code = rest.partition(" ")
    if word != "failed" or name not in sandbox.services:
        raise BackendError(f"the services of {paths.name} did not settle: {done.complaint}", hint="create it again")
    log = ctx.host.run(scripts.tail(paths, [name], lines=20, follow=False), ctx.deadline)
    raise BackendError(
        f"service {name!r} ended with {code}: {log.complaint or 'it said nothing'}",
        hint=f"mend `options.services.{name}` of the profile; `--keep-failed` keeps the sandbox for a look",
        fault="caller",
    )
