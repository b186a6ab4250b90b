"""gRPC for the fake: methods by name from the SDK's own descriptors, with the record, the faults and the latency."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import StatusDetailsCodecBase
from modal_proto import api_pb2

from tests.fakes.faults import Fault, Script

_KEPT: Final = 20_000
_WORD: Final = re.compile(r"(?<!^)(?=[A-Z])")
"""Where a word of a method's name begins: `SandboxCreateV2` is served by `sandbox_create_v2`."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call as it came: the method's path, the message and its bytes, and the metadata."""

    path: str
    message: Any
    payload: bytes
    metadata: Mapping[str, str]
    at: float = field(default_factory=time.time)

    @property
    def method(self) -> str:
        """The method's own name."""
        return self.path.rpartition("/")[2]


class Details(StatusDetailsCodecBase):
    """Error details as Modal's SDK decodes them."""

    def encode(self, status: Status, message: str | None, details: Any) -> bytes:
        """To bytes."""
        told = api_pb2.RPCStatus(code=status.value, message=message or "")
        for detail in details or ():
            told.details.add().Pack(detail, type_url_prefix="type.modal.com/")
        return bytes(told.SerializeToString())

    def decode(self, status: Status, message: str | None, data: bytes) -> Any:
        """Never asked of a server."""
        return None


class Switchboard:
    """Turns the methods of an object into a gRPC service. A method takes (message, metadata) and returns an answer, or
    yields several; it raises GRPCError to refuse."""

    def __init__(self, script: Script, *, latency: Callable[[], float]) -> None:
        self.script = script
        self._latency = latency
        self._lock = threading.Lock()
        self._calls: deque[Call] = deque(maxlen=_KEPT)

    @property
    def calls(self) -> list[Call]:
        """What was asked, in order."""
        with self._lock:
            return list(self._calls)

    def service(self, descriptor: Any, target: object) -> _Service:
        """A service of those methods in `descriptor` that `target` has."""
        mapping: dict[str, Handler] = {}
        for method in descriptor.methods:
            implementation = getattr(target, _WORD.sub("_", method.name).lower(), None)
            if implementation is None:
                continue
            if method.client_streaming:
                raise NotImplementedError(method.full_name)
            path = f"/{descriptor.full_name}/{method.name}"
            streaming = method.server_streaming
            mapping[path] = Handler(
                self._streamed(path, implementation) if streaming else self._single(path, implementation),
                Cardinality.UNARY_STREAM if streaming else Cardinality.UNARY_UNARY,
                method.input_type._concrete_class,
                method.output_type._concrete_class,
            )
        return _Service(mapping)

    def _single(self, path: str, implementation: Callable[..., Any]) -> Callable[[Any], Any]:
        async def handle(stream: Any) -> None:
            opened = await self._open(path, stream)
            if opened is None:
                return
            message, metadata, fault = opened
            answer = implementation(message, metadata, **_stale(implementation, fault))
            if inspect.isawaitable(answer):
                answer = await answer
            if fault is not None and fault.kind in ("slow", "trickle"):
                await asyncio.sleep(fault.seconds)
            if fault is not None and fault.kind in ("lost-answer", "truncate"):
                await stream.cancel()
                return
            await stream.send_message(answer)

        return handle

    def _streamed(self, path: str, implementation: Callable[..., Any]) -> Callable[[Any], Any]:
        async def handle(stream: Any) -> None:
            opened = await self._open(path, stream)
            if opened is None:
                return
            message, metadata, fault = opened
            if fault is not None and fault.kind in ("slow", "trickle"):
                await asyncio.sleep(fault.seconds)
            async for answer in implementation(message, metadata):
                await stream.send_message(answer)
                if fault is not None and fault.kind in ("lost-answer", "truncate"):
                    await stream.cancel()
                    return

        return handle

    async def _open(self, path: str, stream: Any) -> tuple[Any, Mapping[str, str], Fault | None] | None:
        message = await stream.recv_message()
        metadata = {key: str(value) for key, value in (stream.metadata or {}).items()}
        call = Call(path=path, message=message, payload=message.SerializeToString(), metadata=metadata)
        with self._lock:
            self._calls.append(call)
        if (latency := self._latency()) > 0:
            await asyncio.sleep(latency)
        fault = self.script.take("POST", path)
        if fault is None:
            return message, metadata, None
        if fault.kind == "status":
            raise refusal(fault)
        if fault.kind == "hang":
            await asyncio.Event().wait()
        if fault.kind == "drop":
            await stream.cancel()
            return None
        return message, metadata, fault


def _stale(implementation: Callable[..., Any], fault: Fault | None) -> dict[str, bool]:
    if fault is None or fault.kind != "stale-list" or "stale" not in inspect.signature(implementation).parameters:
        return {}
    return {"stale": True}


def refusal(fault: Fault) -> GRPCError:
    """A scripted refusal. `status` is a gRPC status number; a header `retry-after` becomes a server's wish to wait."""
    status = Status(fault.status) if 0 < fault.status <= 16 else Status.INTERNAL
    body = fault.body.decode() if isinstance(fault.body, bytes) else str(fault.body)
    after = {key.lower(): value for key, value in fault.headers.items()}.get("retry-after")
    details = None if after is None else [api_pb2.RPCRetryPolicy(retry_after_secs=float(after))]
    return GRPCError(status, body or f"scripted {status.name}", details)


class _Service:
    """What grpclib's server takes."""

    def __init__(self, mapping: dict[str, Handler]) -> None:
        self._mapping = mapping

    def __mapping__(self) -> dict[str, Handler]:
        return self._mapping
