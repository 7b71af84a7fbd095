"""The document says what the routes are."""

import json
import re

from topology.settings import Settings
from topology.worker import Worker
from workers.monitor import openapi
from workers.monitor.agent import Monitor


def routes():
    return Monitor(Worker("monitor", Settings(_env_file=None, broker="localhost:9092"), serve_http=False)).routes().all


def test_the_committed_document_is_what_the_routes_say():
    assert openapi.FILE.read_text(encoding="utf-8") == openapi.document(routes()), (
        "run `python -m workers.monitor.openapi`"
    )


def test_every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own():
    text = openapi.document(routes())
    document = json.loads(text)
    schemas = document["components"]["schemas"]
    assert {name for name in re.findall(r'"#/components/schemas/(\w+)"', text)} <= set(schemas)
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names)) > 20
    for path, methods in document["paths"].items():
        for operation in methods.values():
            named = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
            assert named == re.findall(r"\{(\w+)\}", path), path
