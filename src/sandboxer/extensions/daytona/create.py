"""Create a sandbox whatever happens to the answer, wait for its changes, and delete it.

The name of a sandbox is unique in the organization, so a create may be asked again until its outcome is known: either
it makes the one sandbox, or it is told that the name is taken, and then the one that has it is ours or it is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

from sandboxer.errors import BackendError, Conflict, SandboxerError, Timeout, Unavailable
from sandboxer.extensions.daytona.client import DaytonaClient, Toolbox, pauses, sleep
from sandboxer.extensions.daytona.errors import api_error, busy, message
from sandboxer.extensions.daytona.handle import DaytonaHandleData, check_absence_proved, check_base
from sandboxer.extensions.daytona.options import DaytonaOptions, gpu
from sandboxer.extensions.daytona.sandbox import DaytonaSandbox
from sandboxer.extensions.provider.errors import ended, stopped
from sandboxer.extensions.provider.lost_create import (
    Look,
    Trouble,
    Verdict,
    needs_look,
    settle,
    trouble_of,
    with_outcome,
)
from sandboxer.extensions.provider.wait import fits, part_of, told_to_wait
from sandboxer.http import segment
from sandboxer.names import LABEL_ID, LABEL_INSTALL
from sandboxer.timing import Deadline, now

ATTEMPTS: Final = 4
"""How often a create is asked at most."""
LOOKS: Final = 8
"""How often a name that is taken is looked for."""
CREATE_SECONDS: Final = 60.0
"""How long one create may go unanswered, so that time is left to find out what became of it."""

BROKEN_LOOKS: Final = 8
"""How often in a row a sandbox that is being destroyed may show an error before that is held to be the end of it."""

UNKNOWN_SECONDS: Final = 3.0
"""How long a proxy may say that it does not know a sandbox which has started."""


def minutes(expires_at: float | None, now: float) -> int:
    """Convert a TTL to Daytona's unit, rounded up so that it never ends early; 0 is none. Both in unix seconds."""
    return 0 if expires_at is None else max(1, math.ceil((expires_at - now) / 60))


def create_body(
    options: DaytonaOptions, *, name: str, labels: Mapping[str, str], expires_at: float | None, now: float
) -> dict[str, Any]:
    """Build the body of `POST /sandbox`. Pure. Nothing is sent that was not asked for, so that an older server, which
    would refuse a key that it does not know, is asked for no more than it has to understand."""
    body: dict[str, Any] = {
        "name": name,
        "labels": dict(labels),
        "autoStopInterval": options.auto_stop_minutes,
        "autoDeleteInterval": options.auto_delete_minutes,
    }
    if expires_at is not None:
        body["ttlMinutes"] = minutes(expires_at, now)
    if options.env:
        body["env"] = options.env
    if options.public:
        body["public"] = True
    if options.network == "none":
        body["networkBlockAll"] = True
    if options.network_allow_list:
        body["networkAllowList"] = ",".join(options.network_allow_list)
    for key, value in (
        ("target", options.target),
        ("user", options.user),
        ("autoArchiveInterval", options.auto_archive_minutes),
        ("queueTimeout", options.queue_minutes),
    ):
        if value is not None:
            body[key] = value
    return body | (_from_image(options) if options.image is not None else _from_snapshot(options))


def _from_snapshot(options: DaytonaOptions) -> dict[str, Any]:
    """Resources are refused beside a snapshot: it brings its own."""
    return {} if options.snapshot is None else {"snapshot": options.snapshot}


def _from_image(options: DaytonaOptions) -> dict[str, Any]:
    body: dict[str, Any] = {"buildInfo": {"dockerfileContent": f"FROM {options.image}\n"}}
    for key, value in (("cpu", options.cpu), ("memory", options.memory_gib), ("disk", options.disk_gib)):
        if value is not None:
            body[key] = value
    if options.gpu is not None:
        model, count = gpu(options.gpu)
        body |= {"gpu": count, "gpuType": [model]}
    return body


def create(cloud: DaytonaClient, body: Mapping[str, Any], deadline: Deadline) -> DaytonaSandbox:
    """Create the one sandbox of this body's name; a lost answer is settled by `provider.lost_create`. Raises what
    Daytona said; with outcome "unknown" when it could not be found out whether it exists."""
    name, waits = body["name"], pauses(0.2)
    doubt: SandboxerError | None = None
    for attempt in range(1, ATTEMPTS + 1):
        if doubt is not None and deadline.passed:
            raise with_outcome(doubt, "unknown")
        deadline.check(f"asking Daytona for {name}")
        try:
            return cloud.create(body, part_of(deadline, most=CREATE_SECONDS))
        except SandboxerError as error:
            trouble = trouble_of(error, over=deadline.passed)
            doubt = error if trouble in ("lost", "slow", "late") else doubt
            pause = next(waits) if (told := told_to_wait(error)) is None else told
            again = attempt < ATTEMPTS and fits(pause, deadline) and (trouble in ("lost", "slow") or told is not None)
            # asked again, the name itself says whether there is one
            look, found = ("unseen", None) if again else _look(cloud, body, deadline, trouble, doubt=doubt is not None)
            verdict = settle(trouble, look, again=again)
            if found is not None and verdict == "adopt":
                return found
            if verdict != "retry":
                raise _error_of(verdict, error, doubt, found, name) from error
            with suppress(Timeout):
                sleep(pause, deadline)
    raise AssertionError("the last attempt returns or raises")


def _look(
    cloud: DaytonaClient, body: Mapping[str, Any], deadline: Deadline, trouble: Trouble, *, doubt: bool
) -> tuple[Look, DaytonaSandbox | None]:
    """Look for what has our name. One that is taken may be known by its name for a moment before it is shown."""
    if not needs_look(trouble, doubt=doubt):
        return "nothing", None
    waits = pauses(0.1)
    try:
        for _ in range(LOOKS if trouble == "taken" else 1):
            found = cloud.sandbox(body["name"], deadline)
            if found is not None and found.phase != "gone":
                labels = body["labels"]
                return ("ours" if is_ours(found, labels[LABEL_ID], labels[LABEL_INSTALL]) else "others"), found
            if trouble == "taken":
                sleep(next(waits), deadline)
    except SandboxerError:
        return "unseen", None
    return "nothing", None


def _error_of(
    verdict: Verdict, error: SandboxerError, doubt: SandboxerError | None, found: DaytonaSandbox | None, name: str
) -> SandboxerError:
    """Choose the error to raise. Once an answer was lost, a later refusal does not say that nothing exists."""
    if verdict == "conflict" and found is not None:
        return Conflict(
            f"the name {name} is taken at Daytona by a sandbox that is not ours ({found.id})",
            hint="create it again: it gets another name",
            fault="backend",
        )
    if verdict == "unknown" and doubt is None:
        return BackendError(
            f"Daytona says that the name {name} is taken, and shows no such sandbox: {error.message}",
            hint="run `sandboxer reconcile`",
            outcome="unknown",
        )
    return with_outcome(doubt or error, "unknown" if verdict == "unknown" else "failed")


def is_ours(found: DaytonaSandbox, sandbox_id: str, install: str) -> bool:
    """Tell whether a sandbox carries our labels."""
    return found.labels.get(LABEL_ID) == sandbox_id and found.labels.get(LABEL_INSTALL) == install


def until_up(cloud: DaytonaClient, name: str, deadline: Deadline, progress: Callable[[str], None]) -> DaytonaSandbox:
    """Wait until a sandbox has started. Raises BackendError when it came up wrong, Unavailable when there was no place
    for it, Timeout."""
    said = ""
    for pause in pauses():
        found = cloud.sandbox(name, deadline)
        if found is None or found.phase == "gone":
            raise _gone(name, found)
        if found.phase == "up":
            return found
        if found.phase not in ("coming", None):
            raise BackendError(
                f"{name} did not come up at Daytona: {found.trouble}",
                hint="see its build logs at app.daytona.io; `--keep-failed` keeps it for `sandboxer logs`",
                details={"state": found.state},
            )
        if found.state != said:
            said = found.state
            progress(said.replace("_", " "))
        sleep(pause, deadline)
    raise AssertionError("pauses do not end")


def _gone(name: str, found: DaytonaSandbox | None) -> SandboxerError:
    if found is not None and found.queue_timed_out:
        return Unavailable(
            f"{name} waited in Daytona's queue until its time was over: no capacity",
            hint="try again later, another region in options.target, or a longer options.queue_minutes",
        )
    if found is not None and found.evicted:
        return Unavailable(f"Daytona evicted {name} to make room", hint="try again later")
    return BackendError(f"{name} is gone from Daytona", hint="create it again")


def until_state(
    cloud: DaytonaClient, name: str, deadline: Deadline, *, wanted: Callable[[DaytonaSandbox], bool], doing: str
) -> DaytonaSandbox:
    """Wait until a sandbox is as wanted. Raises BackendError when it is gone or broken, Timeout."""
    for pause in pauses():
        found = cloud.sandbox(name, deadline)
        if found is None or found.phase == "gone":
            raise BackendError(f"{name} is gone from Daytona while {doing} it", hint="run `sandboxer reconcile`")
        if wanted(found):
            return found
        if found.phase == "broken":
            raise BackendError(f"{name} broke while {doing} it: {found.trouble}", hint="see it at app.daytona.io")
        sleep(pause, deadline)
    raise AssertionError("pauses do not end")


def change(cloud: DaytonaClient, name: str, what: str, deadline: Deadline) -> None:
    """`POST /sandbox/{name}/{what}`, once another change of the sandbox has ended. Raises NotFound, BackendError."""
    _while_busy(cloud, "POST", f"/sandbox/{segment(name)}/{what}", deadline, expect=(200, 201, 202, 204))


def remove(cloud: DaytonaClient, data: DaytonaHandleData, deadline: Deadline) -> None:
    """Delete a sandbox and see that it is gone. Raises when anything is, or may be, left."""
    check_base(data, cloud.base)
    _while_busy(cloud, "DELETE", f"/sandbox/{segment(data.name)}", deadline, expect=(200, 202, 204, 404))
    broken = 0
    for pause in pauses():
        found = cloud.sandbox(data.name, deadline)
        if found is None or found.phase == "gone":
            break
        broken = broken + 1 if found.phase == "broken" else 0
        if broken == BROKEN_LOOKS:
            raise BackendError(
                f"Daytona could not destroy {data.name}: {found.trouble}",
                hint="run the command again, or delete it at app.daytona.io",
                outcome="unknown",
            )
        sleep(pause, deadline)
    check_absence_proved(data, cloud.key, now=now())


def _while_busy(cloud: DaytonaClient, method: str, path: str, deadline: Deadline, *, expect: tuple[int, ...]) -> None:
    for pause in pauses(0.2):
        answer = cloud.api.call(method, path, deadline, retry="safe", expect=None)
        if answer.status in expect:
            if answer.status == 404:
                cloud.check_absence(answer, deadline)
            return
        error = api_error(answer)
        told = told_to_wait(error)
        if told is None and not busy(answer):
            raise error
        wait = pause if told is None else told
        if not fits(wait, deadline):
            raise error
        sleep(wait, deadline)


def _status(error: SandboxerError) -> int | None:
    return (error.details or {}).get("status")


def until_answering(cloud: DaytonaClient, up: DaytonaSandbox, deadline: Deadline) -> str | None:
    """Wait until the toolbox of a started sandbox answers; the directory in which commands run, where it says so. The
    proxy before it may take a moment to know a new sandbox; one that goes on not to know the question is taken for a
    toolbox that has no answer to it. Raises BackendError when it does not run any more."""
    toolbox = cloud.toolbox(up.id, up.toolbox, deadline)
    unknown_until = deadline.shorter(UNKNOWN_SECONDS)
    for pause in pauses():
        answer = toolbox.api.call("GET", toolbox.path("/work-dir"), deadline, retry="safe", expect=None)
        if answer.status == 200:
            found = answer.json()
            told = found.get("dir") if isinstance(found, dict) else None
            return told if isinstance(told, str) and told.startswith("/") else None
        if answer.status == 404 and (unknown_until.passed or message(answer).startswith("404 page not found")):
            return None  # a toolbox that is older than the question
        error = api_error(answer)
        left = deadline.left()
        if answer.status in (401, 403) or (left is not None and pause >= left):
            raise error
        until_up(cloud, up.name, deadline, lambda _state: None)
        sleep(pause, deadline)
    raise AssertionError("pauses do not end")


class ToolboxSession:
    """A sandbox's toolbox for one use: `with ToolboxSession(...) as toolbox`. A refusal inside is told as what
    it mostly is: that the sandbox does not run."""

    def __init__(self, cloud: DaytonaClient, data: DaytonaHandleData, deadline: Deadline) -> None:
        self._cloud, self._data, self._deadline = cloud, data, deadline

    def __enter__(self) -> Toolbox:
        data = self._data
        if data.id is not None and data.toolbox is not None:
            return self._cloud.toolbox(data.id, data.toolbox, self._deadline)
        found = self._look()
        return self._cloud.toolbox(found.id, found.toolbox, self._deadline)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(error, SandboxerError) and _status(error) in (400, 404, 409, 502, 503, 504):
            self._check_runs(self._look(), error)

    def _check_runs(self, found: DaytonaSandbox, error: SandboxerError) -> None:
        if found.phase == "resting":
            sandbox_id = self._data.sandbox_id
            raise stopped(found.name, found.state, provider="Daytona", sandbox_id=sandbox_id) from error
        if found.phase != "up":
            raise Conflict(
                f"{found.name} does not run at Daytona: {found.trouble}",
                hint=f"run `sandboxer get {self._data.sandbox_id}`",
                fault="backend",
            ) from error

    def _look(self) -> DaytonaSandbox:
        data = self._data
        found = self._cloud.sandbox(data.name, self._deadline)
        if found is None or found.phase == "gone":
            check_absence_proved(data, self._cloud.key, now=now())
            sandbox_id = data.sandbox_id
            raise ended(data.name, provider="Daytona", sandbox_id=sandbox_id, kind=BackendError)
        return found
