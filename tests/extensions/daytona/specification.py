"""Daytona's own specifications: what may be asked, and what an answer looks like."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from jsonschema import Draft202012Validator

from tests.fakes import RecordedRequest

_HERE = Path(__file__).parents[2] / "specs" / "daytona"
_NUMBERS = re.compile(r"-?\d+(\.\d+)?")


class Violation(AssertionError):
    """Something that the specification does not allow."""


@cache
def _document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_HERE / name).read_text())
    return found


def check_request(asked: RecordedRequest) -> str:
    """Hold a request against the specification; the path of it that it is. Raises Violation."""
    if asked.path.startswith("/api/"):
        spec, path = _document("api.json"), asked.path.removeprefix("/api")
    elif (match := re.fullmatch(r"/toolbox/[^/]+(/.*)", asked.path)) is not None:
        spec, path = _document("toolbox.json"), match[1]
    else:
        raise Violation(f"{asked.path} is neither Daytona's API nor a toolbox")
    template, operation = _operation(spec, asked.method, path)
    parameters = [*operation.get("parameters", [])]
    given = parse_qs(asked.query_text, keep_blank_values=True)
    known = {p["name"]: p for p in parameters if p["in"] == "query"}
    if unknown := sorted(set(given) - set(known)):
        raise Violation(f"{asked.method} {template} has no parameter {unknown[0]}")
    for name, parameter in known.items():
        if parameter.get("required") and name not in given:
            raise Violation(f"{asked.method} {template} needs the parameter {name}")
        kind = (parameter.get("schema") or parameter).get("type")
        for value in given.get(name, []):
            if kind in ("number", "integer") and not _NUMBERS.fullmatch(value):
                raise Violation(f"{asked.method} {template}: {name} is no number")
            if kind == "boolean" and value not in ("true", "false"):
                raise Violation(f"{asked.method} {template}: {name} is neither true nor false")
    _check_body(spec, f"{asked.method} {template}", operation, asked)
    return f"{asked.method} {template}"


def _operation(spec: dict[str, Any], method: str, path: str) -> tuple[str, dict[str, Any]]:
    """The most literal path that matches."""
    for template in sorted(spec["paths"], key=lambda one: one.count("{")):
        pattern = re.sub(r"\\\{[^/]+?\\\}", "[^/]+", re.escape(template))
        operations = spec["paths"][template]
        if re.fullmatch(pattern, path) and method.lower() in operations:
            found: dict[str, Any] = operations[method.lower()]
            return template, found
    raise Violation(f"there is no {method} {path}")


def _check_body(spec: dict[str, Any], what: str, operation: Mapping[str, Any], asked: RecordedRequest) -> None:
    schema = _body_schema(operation)
    kind = asked.headers.get("content-type", "")
    if schema is None:
        if asked.body and not kind.startswith(("multipart/form-data", "application/octet-stream")):
            raise Violation(f"{what} takes no body")
        return
    try:
        body = json.loads(asked.body)
    except ValueError:
        raise Violation(f"{what} needs a body of JSON") from None
    _hold({**schema, **_definitions(spec)}, body, what)
    name = schema.get("$ref", "").rpartition("/")[2]
    properties = set(_schemas(spec).get(name, {}).get("properties", {})) | _newer(name)
    if properties and (unknown := sorted(set(body) - properties)):
        raise Violation(f"{what}: the body has no {unknown[0]}")


def _body_schema(operation: Mapping[str, Any]) -> dict[str, Any] | None:
    if "requestBody" in operation:
        found: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["schema"]
        return found
    bodies = [p["schema"] for p in operation.get("parameters", []) if p["in"] == "body"]
    return bodies[0] if bodies else None


def _schemas(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec.get("definitions") or spec["components"]["schemas"]
    return found


def _definitions(spec: dict[str, Any]) -> dict[str, Any]:
    nullable = _with_null(spec)
    return {key: nullable[key] for key in ("components", "definitions") if key in nullable}


def _with_null(value: Any) -> Any:
    """OpenAPI 3.0 says `nullable`, JSON Schema says it by the type."""
    if isinstance(value, list):
        return [_with_null(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    found = {key: _with_null(inner) for key, inner in value.items() if key != "nullable"}
    if value.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found


def _newer(name: str) -> set[str]:
    """What the client of 2026-11 sends besides."""
    for key, model in _document("models-0.226.1.jsonschema.json").items():
        if key.endswith(f".{name}"):
            return set(model["properties"])
    return set()


def _hold(schema: dict[str, Any], value: Any, what: str) -> None:
    errors = sorted(Draft202012Validator(schema).iter_errors(value), key=lambda error: list(error.path))
    if errors:
        where = "/".join(str(part) for part in errors[0].path)
        raise Violation(f"{what}: {where or 'the whole'}: {errors[0].message[:300]}")


def check_answer(model: str, document: Any) -> None:
    """Hold an answer against a model of the client of 2026-11, like `Sandbox`. Raises Violation."""
    for key, schema in _document("models-0.226.1.jsonschema.json").items():
        if key.endswith(f".{model}"):
            _hold(schema, document, model)
            return
    raise Violation(f"there is no model {model}")
