"""Rounds of create, exec and destroy on a provider, by our adapter or by the provider's own SDK, in its own process.

The SDK does the same work: it waits until the sandbox is there, keeps stdout and stderr apart, and makes sure that it
is gone. (E2B's, which answers a create when the sandbox runs, is asked for what it was allotted, as ours is.)

    bench_cycles.py (ours|sdk) (e2b|daytona|modal)

Reads a number of rounds from each line of its input, and answers each with the seconds and processor seconds that they
took."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

LABELS = {"sandboxer-id": "x", "sandboxer-install": "bench", "sandboxer-expires": "1", "sandboxer-profile": "bench"}
"""As many as we put on ours."""

Cycle = Callable[[], None]


def ours(provider: str, root: Path) -> Cycle:
    """Our adapter, with the context that the core gives it."""
    import msgspec
    from tests.installations import environment

    from sandboxer.bootstrap import install
    from sandboxer.extensions.base import Exec, Spec
    from sandboxer.hosts.base import Streams
    from sandboxer.names import new_id, resource_name
    from sandboxer.timing import Deadline

    core = install({**os.environ, **environment(root)}, relay_in_background=False).manager.services
    name = f"ext.{provider}"
    extension = core.extensions.get(name)
    options = msgspec.convert({}, extension.Options)

    def cycle() -> None:
        sandbox_id = new_id()
        labels = {key.replace("-", "."): value for key, value in LABELS.items()} | {"sandboxer.id": sandbox_id}
        context = core.extension_context(name, None, Deadline(60))
        spec = Spec(
            sandbox_id=sandbox_id,
            resource=resource_name(sandbox_id),
            profile="profile.bench",
            labels=labels,
            inputs={},
            options=options,
            expires_at=time.time() + 3600,
        )
        handle = extension.provision(spec, context)
        extension.wait_ready(handle, context)
        out = bytearray()
        code = extension.exec(  # type: ignore[attr-defined]  # the clouds can
            handle, Exec(argv=("echo", "hi")), Streams(stdout=out.extend, stderr=out.extend), context
        )
        assert (code, bytes(out)) == (0, b"hi\n")
        extension.teardown(handle, context)

    return cycle


def e2b() -> Cycle:
    """The SDK of E2B."""
    from e2b import Sandbox, SandboxNotFoundException

    def cycle() -> None:
        sandbox = Sandbox.create(timeout=3600, metadata=LABELS)
        assert sandbox.get_info().cpu_count
        assert sandbox.commands.run("echo hi").stdout == "hi\n"
        sandbox.kill()
        try:
            sandbox.get_info()
        except SandboxNotFoundException:
            return
        raise AssertionError("it is still there")

    return cycle


def daytona() -> Cycle:
    """The SDK of Daytona."""
    from daytona import CreateSandboxFromSnapshotParams, Daytona, SessionExecuteRequest

    client = Daytona()

    def cycle() -> None:
        asked = CreateSandboxFromSnapshotParams(labels=LABELS, auto_stop_interval=0, ephemeral=True)
        sandbox = client.create(asked)
        sandbox.process.create_session("bench")
        ran = sandbox.process.execute_session_command("bench", SessionExecuteRequest(command="echo hi"))
        assert ran.stdout == "hi\n"
        client.delete(sandbox, wait=True)

    return cycle


def modal() -> Cycle:
    """The SDK of Modal."""
    import modal as sdk

    def cycle() -> None:
        app = sdk.App.lookup("sandboxer", create_if_missing=True)
        sandbox = sdk.Sandbox.create(
            "sleep",
            "infinity",
            app=app,
            image=sdk.Image.debian_slim(),
            tags=LABELS,
            timeout=3600,
            readiness_probe=sdk.Probe.with_exec("true"),
        )
        sandbox.wait_until_ready(timeout=60)
        process = sandbox.exec("echo", "hi")
        assert process.stdout.read() == "hi\n"
        assert process.stderr.read() == ""
        assert process.wait() == 0
        sandbox.terminate(wait=True)

    return cycle


def main(who: str, provider: str) -> None:
    """Serve until the input ends."""
    with tempfile.TemporaryDirectory(prefix="sbb") as root:
        sdks = {"e2b": e2b, "daytona": daytona, "modal": modal}
        serve(ours(provider, Path(root)) if who == "ours" else sdks[provider]())


def serve(cycle: Cycle) -> None:
    """Answer each line."""
    for line in sys.stdin:
        wall, busy = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            cycle()
        took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - busy}
        sys.stdout.write(json.dumps(took) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
