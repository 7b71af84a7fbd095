"""The committed documents say what the records say."""

import json
from pathlib import Path

import jsonschema
import pytest

from topology.codec import encode_value
from topology.records import ProductDetected
from topology.schemas.__main__ import main
from topology.schemas.documents import FOLDER, asyncapi, documents, product_detected_schema
from topology.topics import TOPICS


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_the_committed_document_is_up_to_date(path: Path) -> None:
    assert path.read_text() == documents()[path], "run `python -m topology.schemas`"


def test_an_event_fits_its_schema(event: ProductDetected) -> None:
    schema = json.loads((FOLDER / "product_detected.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(encode_value(event)[0]), schema)


def test_an_unknown_status_does_not_fit_the_schema(event: ProductDetected) -> None:
    unknown = json.loads(encode_value(event)[0]) | {"status": "perhaps"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(unknown, product_detected_schema())


def test_fields_are_described_where_the_records_describe_them() -> None:
    field = product_detected_schema()["properties"]["latency_ms"]
    assert field["description"] == "From the capture of the newest frame looked at to this event."


def test_the_description_names_all_topics_and_resolves_its_references() -> None:
    document = asyncapi()
    assert set(document["channels"]) == set(TOPICS)

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [ref for value in node.values() for ref in references(value)]
        return [ref for value in node for ref in references(value)] if isinstance(node, list) else []

    for reference in references(document):
        node: object = document
        for part in reference.removeprefix("#/").split("/"):
            assert isinstance(node, dict)
            node = node[part]


def test_check_finds_a_stale_document(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("topology.schemas.documents.FOLDER", tmp_path)
    assert main(["--check"]) == 1
    assert main([]) == 0
    assert main(["--check"]) == 0
