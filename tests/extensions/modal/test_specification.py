"""Each request of ours is one that Modal's own descriptors know, to the last field and value."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, unknown_fields  # type: ignore[import-untyped]

from sandboxer.extensions.base import Exec
from sandboxer.extensions.modal import ModalExtension
from sandboxer.hosts.base import Streams
from sandboxer.names import new_id
from tests.extensions.modal.harness import context, made, spec
from tests.fakes.modal import FakeModal
from tests.fakes.modal.grpc import Call

DESCRIPTORS = Path(__file__).parents[2] / "specs/modal/modal-1.6.4.filedescriptorset.binpb"


@cache
def pool() -> Any:
    """The descriptors, apart from those that the SDK has loaded."""
    found = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        found.Add(file)
    return found


def violations(path: str, payload: bytes) -> list[str]:
    """What is wrong with a request: a method, a field or a value that is not known."""
    service, _, method = path.strip("/").partition("/")
    try:
        known = pool().FindServiceByName(service).methods_by_name[method]
    except KeyError:
        return [f"{path}: no such method"]
    message = message_factory.GetMessageClass(known.input_type)()
    message.ParseFromString(payload)
    return [f"{path}: {fault}" for fault in _strange(message)]


def _strange(message: Any) -> Iterator[str]:
    for field in unknown_fields.UnknownFieldSet(message):
        yield f"{message.DESCRIPTOR.name} has no field {field.field_number}"
    for field, value in message.ListFields():
        values = value if field.is_repeated and not _is_map(field) else [value]
        for each in values:
            if field.enum_type is not None and each not in field.enum_type.values_by_number:
                yield f"{field.full_name} has no value {each}"
            elif field.message_type is not None and not _is_map(field):
                yield from _strange(each)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


@pytest.fixture(scope="module", params=[None, "H100:2"], ids=["v2", "v1"])
def asked(request: pytest.FixtureRequest) -> Iterator[list[Call]]:
    """Everything that is asked in a tour of all that the extension can do."""
    with FakeModal() as cloud:
        _tour(cloud, gpu=request.param)
        yield cloud.calls


def _tour(cloud: FakeModal, *, gpu: str | None) -> None:
    extension, sandbox_id = ModalExtension(), new_id()
    extension.check(context(cloud))
    handle = made(
        cloud, sandbox_id=sandbox_id, gpu=gpu, image="debian:12", command=["true"], cpu=1.5, memory_gib=1.5,
        region="us-east", cloud="aws", ports=[8080], env={"A": "é\n"}, workdir="/work", idle_timeout="1h",
        max_life="2h",
    )  # fmt: skip
    sink = bytearray()
    streams = Streams(stdin=io.BytesIO(b"in"), stdout=sink.extend, stderr=sink.extend)
    assert extension.exec(handle, Exec(argv=("cat",), env={"B": ""}, cwd="/tmp"), streams, context(cloud)) == 0
    assert extension.exec(handle, Exec(argv=("tty",), tty=True), streams, context(cloud)) == 0
    extension.put_archive(handle, "/tmp/x", io.BytesIO(bytes(10240)), context(cloud))
    extension.get_archive(handle, "/tmp/x", sink.extend, context(cloud))
    extension.logs(handle, streams, context(cloud), service=None, follow=False, tail=5)
    extension.renew(handle, time.time() + 3700, context(cloud))
    assert extension.find(sandbox_id, context(cloud)) is not None
    assert extension.find(new_id(), context(cloud)) is None
    assert len(extension.inventory(context(cloud))) == 1
    assert extension.status(handle, context(cloud)).presence == "running"
    kept = extension.snapshot(handle, f"snap-{new_id()}", context(cloud))
    closed = extension.restore_from_snapshot(spec(gpu=gpu, block_network=True), kept, context(cloud))
    for each in (handle, closed):
        extension.teardown(each, context(cloud))
    extension.delete_snapshot(kept, context(cloud))
    assert cloud.census() == []


def test_every_request_is_known(asked: list[Call]) -> None:
    assert [fault for call in asked for fault in violations(call.path, call.payload)] == []
    assert len({call.method for call in asked}) >= 18


def test_what_a_create_asks_for_is_what_the_options_say(asked: list[Call]) -> None:
    first = next(call.message for call in asked if call.method in ("SandboxCreate", "SandboxCreateV2"))
    made_of = first.definition
    assert (made_of.resources.milli_cpu, made_of.resources.milli_cpu_max) == (1500, 1500)
    assert (made_of.resources.memory_mb, made_of.resources.memory_mb_max) == (1536, 1536)
    assert (made_of.timeout_secs, made_of.idle_timeout_secs) == (7200, 3600)
    assert (made_of.cloud_provider_str, list(made_of.scheduler_placement.regions)) == ("aws", ["us-east"])
    tags = {tag.tag_name: tag.tag_value for tag in first.tags}
    assert {"sandboxer-id", "sandboxer-install", "sandboxer-expires", "sandboxer-profile"} <= set(tags)
    assert made_of.name == f"sbx-{tags['sandboxer-id']}"
    assert all(len(value) <= 63 for value in tags.values())


def test_the_check_sees_an_unknown_field_value_and_method(asked: list[Call]) -> None:
    """The harness has been seen to fail."""
    create = next(call for call in asked if call.method in ("SandboxCreate", "SandboxCreateV2"))
    assert violations(create.path, create.payload + b"\xfa\x3f\x01x") == [
        f"{create.path}: {create.method}Request has no field 1023"
    ]
    assert violations("/modal.client.ModalClient/NoSuchThing", b"") != []
    wrong = type(create.message).FromString(create.payload)
    wrong.definition.network_access.network_access_type = 99
    assert "has no value 99" in violations(create.path, wrong.SerializeToString())[0]
