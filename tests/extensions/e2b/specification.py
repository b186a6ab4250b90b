"""E2B's specification, and what in a request does not fit it. Unknown keys, parameters and paths are faults too."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import yaml

from tests.fakes import RecordedRequest

SPECS = Path(__file__).parents[2] / "specs/e2b"
ENVD = "envd.yaml"
CONTROL = ("openapi-v2-sandboxes-supplement.yml", "openapi.yml")


def violations(requests: Iterable[RecordedRequest]) -> list[str]:
    """What is wrong with requests, one line each; empty when all fit."""
    return [f"{request.method} {request.path}: {fault}" for request in requests for fault in _faults(request)]


def _faults(request: RecordedRequest) -> list[str]:
    if request.path.startswith(("/process.Process/", "/filesystem.Filesystem/")):
        return _rpc(request)
    found = _operation(request)
    if found is None:
        return ["no such operation"]
    file, operation, item = found
    faults = _parameters(file, request, [*item.get("parameters", []), *operation.get("parameters", [])])
    return faults + _body(file, request, operation.get("requestBody"))


@cache
def _document(name: str) -> Any:
    return yaml.safe_load((SPECS / name).read_text())


def _operation(request: RecordedRequest) -> tuple[str, dict[str, Any], dict[str, Any]] | None:
    for file in (*CONTROL, ENVD):
        for template, item in _document(file)["paths"].items():
            pattern = re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(template))
            # a path segment that holds a slash was quoted on the wire
            if not re.fullmatch(pattern, request.path) and not re.fullmatch(pattern, _requoted(request.path)):
                continue
            if request.method.lower() in item:
                return file, item[request.method.lower()], item
    return None


def _requoted(path: str) -> str:
    head, _, rest = path[1:].partition("/")
    return f"/{head}/{quote(rest, safe='')}"


def _deref(file: str, node: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    while "$ref" in node:
        name, _, pointer = node["$ref"].partition("#")
        file = name or file
        found: Any = _document(file)
        for key in pointer.strip("/").split("/"):
            found = found[key]
        node = found
    return file, node


def _parameters(file: str, request: RecordedRequest, listed: list[dict[str, Any]]) -> list[str]:
    known: dict[str, tuple[str, dict[str, Any]]] = {}
    for parameter in listed:
        where, resolved = _deref(file, parameter)
        if resolved["in"] == "query":
            known[resolved["name"]] = (where, resolved)
    faults = []
    given = parse_qs(request.query_text, keep_blank_values=True)
    for name, values in given.items():
        if name not in known:
            faults.append(f"unknown parameter {name!r}")
            continue
        where, resolved = known[name]
        schema = _plain(where, resolved["schema"])
        for value in values:
            faults += [f"parameter {name}: {fault}" for fault in _check(_typed(value, schema), schema)]
    return faults + [f"parameter {name!r} is missing" for name, (_, one) in known.items() if _lacks(one, given)]


def _lacks(parameter: dict[str, Any], given: dict[str, list[str]]) -> bool:
    return bool(parameter.get("required")) and parameter["name"] not in given


def _typed(value: str, schema: dict[str, Any]) -> Any:
    if schema.get("type") == "array":
        return value.split(",")
    if schema.get("type") == "integer" and re.fullmatch(r"-?\d+", value):
        return int(value)
    return value


def _body(file: str, request: RecordedRequest, described: dict[str, Any] | None) -> list[str]:
    if described is None:
        return ["a body that is not expected"] if request.body else []
    where, resolved = _deref(file, described)
    if not request.body and "transfer-encoding" not in request.headers:
        return ["the body is missing"] if resolved.get("required") else []
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind not in resolved["content"]:
        return [f"content type {kind!r} is not expected"]
    if kind != "application/json":
        return []
    return _check(json.loads(request.body), _plain(where, resolved["content"][kind]["schema"]))


def _check(value: Any, schema: dict[str, Any]) -> list[str]:
    from jsonschema import Draft202012Validator

    found = Draft202012Validator(schema).iter_errors(value)
    return [f"{'/'.join(str(part) for part in error.path)}: {error.message}" for error in found]


def _plain(file: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of its own, without references; objects take no keys that they do not name."""
    where, node = _deref(file, schema)
    made: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            made[key] = {name: _plain(where, one) for name, one in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            made[key] = _plain(where, value)
        elif key in ("oneOf", "anyOf", "allOf"):
            made[key] = [_plain(where, one) for one in value]
        elif key not in ("nullable", "description", "example", "deprecated", "format"):
            made[key] = value
    if "properties" in made and "additionalProperties" not in made:
        made["additionalProperties"] = False
    if node.get("nullable"):
        return {"anyOf": [made, {"type": "null"}]}
    return made


def _rpc(request: RecordedRequest) -> list[str]:
    """Held to the messages that E2B's own client was made with; they refuse unknown keys."""
    from e2b.envd.filesystem import filesystem_pb
    from e2b.envd.process import process_pb

    name = request.path.rsplit("/", 1)[-1]
    module: Any = process_pb if "process" in request.path else filesystem_pb
    message = getattr(module, f"{name}Request", None)
    if message is None:
        return ["no such method"]
    body = request.body
    kind = request.headers.get("content-type")
    if name in ("Start", "Connect"):
        if kind != "application/connect+json":
            return [f"content type {kind!r}"]
        flags, length = struct.unpack(">BI", body[:5])
        if flags or length != len(body) - 5:
            return ["not exactly one message"]
        body = body[5:]
    elif kind != "application/json":
        return [f"content type {kind!r}"]
    try:
        message.from_json(body)
    except ValueError as error:
        return [str(error)]
    return []
