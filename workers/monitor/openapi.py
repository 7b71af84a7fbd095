"""The OpenAPI document of the routes, made of the routes themselves.

`python -m workers.monitor.openapi` writes `openapi.json`, which the monitor serves; `--check` only compares.
"""

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from topology.http_users import COOKIE, CSRF_HEADER
from workers.monitor.routes import Route

FILE = Path(__file__).parent / "openapi.json"

_TYPES = {"limit": "integer", "from_ms": "integer", "to_ms": "integer"}
_REFERENCE = "#/components/schemas/{name}"


def openapi(routes: list[Route]) -> dict[str, Any]:
    """Returns the OpenAPI 3.1 document of routes."""
    kinds = {kind for route in routes for kind in (route.answer, route.body) if isinstance(kind, type)}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    references, schemas = msgspec.json.schema_components(ordered, ref_template=_REFERENCE)
    named = dict(zip(ordered, references, strict=True))
    for kind in ordered:
        _describe(schemas[kind.__name__], kind)
    schemas["Error"] = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        for path, what in _paths(route.path):
            paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, what, named)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cope-live monitor",
            "version": "1.0.0",
            "description": "What live streams show, why, and what people say of it: docs/monitor.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"token": []}, {"cookie": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": COOKIE,
                    "description": f"Writes need the header {CSRF_HEADER}: 1 beside it.",
                },
            },
        },
    }


def document(routes: list[Route]) -> str:
    """Returns the document as text."""
    return json.dumps(openapi(routes), indent=1) + "\n"


def _paths(path: str) -> list[tuple[str, str]]:
    """Returns a path as OpenAPI writes it, once for each of the names that a parameter may have."""
    choice = re.search(r"\{(\w+):([a-z]+(?:\|[a-z]+)+)\}", path)
    each = [(path.replace(choice[0], name), name) for name in choice[2].split("|")] if choice else [(path, "")]
    return [(re.sub(r"\{(\w+):(?:[^{}]|\{[^{}]*\})*\}", r"{\1}", one), name) for one, name in each]


def _operation(route: Route, path: str, what: str, named: dict[type, dict[str, Any]]) -> dict[str, Any]:
    words = re.findall(r"\w+", re.sub(r"\{(\w+)\}", r"by_\1", path))
    operation: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *words]),
        "summary": route.summary,
        "parameters": [
            *(_parameter(name, "path", "Percent-encoded.") for name in re.findall(r"\{(\w+)\}", path)),
            *(_parameter(name, "query", text) for name, text in route.query.items()),
        ],
        "responses": {
            "200": {"description": route.summary, "content": _content(route.answer, named)},
            "default": {
                "description": "What is wrong.",
                "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(name="Error")}}},
            },
        },
    }
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(route.body, named)}
    if route.public is True:
        operation["security"] = [{}]
    return operation


def _parameter(name: str, place: str, text: str) -> dict[str, Any]:
    schema = {"type": _TYPES.get(name, "string")}
    return {"name": name, "in": place, "required": place == "path", "description": text, "schema": schema}


def _content(kind: type | str, named: dict[type, dict[str, Any]]) -> dict[str, Any]:
    if isinstance(kind, str):
        return {kind: {}}
    return {"application/json": {"schema": named[kind]}}


def _describe(schema: dict[str, Any], kind: type) -> None:
    """Adds the docstring's text to a schema and its fields."""
    text, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:")
    schema["description"] = " ".join(text.split())
    for name, told in re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", attributes, flags=re.MULTILINE):
        field = schema.get("properties", {}).get(name)
        if field is not None and "$ref" not in field:
            field["description"] = " ".join(told.split())


def _of_the_monitor() -> str:
    from topology.settings import Settings
    from topology.worker import Worker
    from workers.monitor.agent import Monitor

    worker = Worker("monitor", Settings.model_construct(broker="localhost:9092"), serve_http=False)
    return document(Monitor(worker).routes().all)


def main(arguments: list[str]) -> int:
    """Writes or checks the document; returns the exit status."""
    text = _of_the_monitor()
    if FILE.exists() and FILE.read_text(encoding="utf-8") == text:
        return 0
    if "--check" in arguments:
        print(f"{FILE} is not what the routes say: run `python -m workers.monitor.openapi`", file=sys.stderr)
        return 1
    FILE.write_text(text, encoding="utf-8")
    print(f"wrote {FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
