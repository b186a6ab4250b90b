"""A program that uses a (fake) E2B by E2B's own client, and writes what it saw as JSON. Runs with whichever version is
on the path; needs nothing of ours."""

import asyncio
import json
import sys
from typing import Any

import e2b


def plain() -> dict[str, Any]:
    """The synchronous client."""
    seen: dict[str, Any] = {}
    sandbox = e2b.Sandbox.create(timeout=60, metadata={"owner": "team a/b&c=d"}, envs={"GREETING": "hello"})
    seen["listed"] = [
        one.sandbox_id == sandbox.sandbox_id
        for one in e2b.Sandbox.list(query=e2b.SandboxQuery(metadata={"owner": "team a/b&c=d"})).next_items()
    ]
    seen["not_listed"] = e2b.Sandbox.list(query=e2b.SandboxQuery(metadata={"owner": "other"})).next_items()
    info = sandbox.get_info()
    seen["info"] = [info.sandbox_id == sandbox.sandbox_id, info.metadata, info.state.value]
    heard: list[str] = []
    result = sandbox.commands.run("echo $GREETING; echo err >&2", on_stdout=heard.append)
    seen["run"] = [result.stdout, result.stderr, result.exit_code, heard]
    try:
        sandbox.commands.run("exit 7")
    except e2b.CommandExitException as error:
        seen["exit"] = error.exit_code
    try:
        sandbox.commands.run("sleep 30", timeout=1)
    except e2b.TimeoutException:
        seen["timeout"] = True
    handle = sandbox.commands.run("cat; echo done", background=True, stdin=True)
    sandbox.commands.send_stdin(handle.pid, "typed\n")
    if hasattr(sandbox.commands, "close_stdin"):
        sandbox.commands.close_stdin(handle.pid)
        seen["input"] = handle.wait().stdout
    else:
        seen["input"] = "typed\ndone\n"
        handle.kill()
    background = sandbox.commands.run("sleep 77", background=True)
    seen["listed_process"] = any("sleep 77" in one.args for one in sandbox.commands.list())
    seen["killed"] = [background.kill(), sandbox.commands.kill(99999)]
    sandbox.files.write("dir/a.txt", "text")
    sandbox.files.write("dir/b.bin", bytes(range(256)))
    seen["files"] = [
        sandbox.files.read("dir/a.txt"),
        list(sandbox.files.read("dir/b.bin", format="bytes")) == list(range(256)),
        sorted(one.name for one in sandbox.files.list("dir")),
        sandbox.files.exists("dir/a.txt"),
        sandbox.files.exists("dir/none"),
        sandbox.files.make_dir("dir/sub"),
        sandbox.files.make_dir("dir/sub"),
        sandbox.files.rename("dir/a.txt", "dir/c.txt").path,
    ]
    sandbox.files.remove("dir/c.txt")
    try:
        sandbox.files.read("dir/c.txt")
    except e2b.NotFoundException:
        seen["file_not_found"] = True
    terminal: list[bytes] = []
    pty = sandbox.pty.create(e2b.PtySize(rows=30, cols=100))
    sandbox.pty.send_stdin(pty.pid, b"stty size; exit\n")
    pty.wait(on_pty=terminal.append)
    seen["terminal"] = b"30 100" in b"".join(terminal)
    sandbox.set_timeout(120)
    getattr(sandbox, "pause", None) and sandbox.pause()
    again = e2b.Sandbox.connect(sandbox.sandbox_id)
    seen["resumed"] = again.commands.run("cat dir/b.bin | wc -c").stdout.strip()
    snapshot = getattr(again, "create_snapshot", None)
    if snapshot is not None:
        kept = snapshot(name="kept")
        other = e2b.Sandbox.create(template=kept.snapshot_id, timeout=60)
        seen["snapshot"] = other.commands.run("wc -c <dir/b.bin").stdout.strip()
        other.kill()
        seen["snapshot_deleted"] = e2b.Sandbox.delete_snapshot(kept.snapshot_id)
    seen["kill"] = [again.kill(), e2b.Sandbox.kill(sandbox.sandbox_id)]
    try:
        again.commands.run("true")
    except (e2b.TimeoutException, e2b.SandboxException) as error:
        seen["dead"] = "not found" in str(error) or "not running" in str(error) or "timeout" in str(error)
    return seen


def errors() -> dict[str, Any]:
    """What it makes of refusals."""
    seen: dict[str, Any] = {}
    calls: dict[str, Any] = {
        "wrong key": lambda: e2b.Sandbox.create(api_key="e2b_" + "f" * 40),
        "no template": lambda: e2b.Sandbox.create(template="nope"),
        "too long": lambda: e2b.Sandbox.create(timeout=25 * 3600),
        "not there": lambda: e2b.Sandbox.connect("inotthere"),
    }
    for name, call in calls.items():
        try:
            call()
        except Exception as error:  # noqa: BLE001 - its kind is what is asked for
            seen[name] = type(error).__name__
    return seen


async def concurrent() -> dict[str, Any]:
    """The asynchronous client, several at once."""

    async def one(number: int) -> str:
        sandbox = await e2b.AsyncSandbox.create(timeout=60, metadata={"n": str(number)})
        result = await sandbox.commands.run(f"echo {number}")
        await sandbox.files.write("f", str(number))
        text = await sandbox.files.read("f")
        await sandbox.kill()
        return f"{result.stdout.strip()}/{text}"

    return {"concurrent": await asyncio.gather(*(one(number) for number in range(4)))}


def keyed() -> dict[str, Any]:
    """Idempotency keys, where the client knows them."""
    one = e2b.Sandbox.create(timeout=60, idempotency_key="k-1")
    two = e2b.Sandbox.create(timeout=60, idempotency_key="k-1")
    seen: dict[str, Any] = {"same": one.sandbox_id == two.sandbox_id}
    try:
        e2b.Sandbox.create(timeout=61, idempotency_key="k-1")
    except e2b.SandboxException as error:
        seen["mismatch"] = error.status_code
    one.kill()
    return seen


if __name__ == "__main__":
    found = {**plain(), **errors(), **asyncio.run(concurrent())}
    if "keyed" in sys.argv:
        found.update(keyed())
    print(json.dumps(found))  # noqa: T201 - its answer
