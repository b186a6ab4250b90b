"""Fuzz a server from its own OpenAPI description (promise 30)."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import Any, ClassVar

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi import checks as rules

from sandboxer.extensions.base import CanSnapshot, CanStop, Context, Exec, Spec, Status
from sandboxer.hosts.base import Streams
from sandboxer.models import Handle
from sandboxer.testing.fake import FakeExtension

SECONDS_PER_ANSWER = 15.0
Request = Case[Any]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


class Harmless(FakeExtension, CanStop, CanSnapshot):
    """The fake, but what it is told to run is only printed: the fuzzer's words are anybody's guess. It is stopped,
    started and kept in name only."""

    stopped: ClassVar[set[str]] = set()

    def status(self, handle: Handle, ctx: Context) -> Status:
        status = super().status(handle, ctx)
        return Status("stopped") if status.presence == "running" and repr(handle.data) in self.stopped else status

    def stop(self, handle: Handle, ctx: Context) -> None:
        self.stopped.add(repr(handle.data))

    def start(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        self.stopped.discard(repr(handle.data))

    def snapshot(self, handle: Handle, name: str, ctx: Context) -> Handle:
        return Handle(version=1, data={"name": name})

    def restore_from_snapshot(self, spec: Spec, snapshot: Handle, ctx: Context) -> Handle:
        return self.provision(spec, ctx)

    def delete_snapshot(self, snapshot: Handle, ctx: Context) -> None:
        """Nothing is there."""

    def exec(self, handle: Handle, request: Exec, streams: Streams, ctx: Context) -> int:
        given = Exec(argv=("printf", "%s", *request.argv), env={}, cwd=None)
        return super().exec(
            handle, given, Streams(stdin=io.BytesIO(), stdout=streams.stdout, stderr=streams.stderr), ctx
        )


def fuzz(url: str, *, examples: int, aim: Callable[[Request, int], None], rounds: int = 1) -> int:
    """Send `examples` requests of either kind to each operation; how many were sent. Raises on the first answer that
    is 5xx, late, tells a traceback, or is not what the description says.

    `aim` may bend a generated request, so that some of them hit something; it gets a number drawn from the request."""
    load_all_checks()
    description = schemathesis.openapi.from_url(f"{url}/openapi.json")
    sent = 0
    for number in range(rounds):
        for found in description.get_all_operations():
            operation: Any = found.ok()  # type: ignore[union-attr]  # our description has no errors, or this raises
            for mode in MODES:
                sent += _fuzz_one(operation, mode, examples=examples, aim=aim, number=number)
    return sent


def _fuzz_one(
    operation: Any, mode: GenerationMode, *, examples: int, aim: Callable[[Request, int], None], number: int
) -> int:
    sent = 0

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def probe(case: Request) -> None:
        nonlocal sent
        sent += 1
        aim(case, zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode("utf-8", "replace")))
        response = case.call(timeout=SECONDS_PER_ANSWER)
        assert response.status_code < 500, f"{case.method} {case.path}: {response.text}"
        assert "Traceback" not in response.text
        case.validate_response(
            response,
            checks=[
                rules.status_code_conformance,
                rules.content_type_conformance,
                rules.response_headers_conformance,
                rules.response_schema_conformance,
            ],
        )

    try:
        probe()
    except Unsatisfiable:
        if sent or mode is not GenerationMode.NEGATIVE:
            raise  # only what takes nothing has nothing wrong to send to it
    return sent
