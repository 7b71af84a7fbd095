"""The generated documents: the JSON Schema of `product_detected` and the AsyncAPI 3 description of all topics."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from topology import records, topics
from topology.codec import CLOUD_EVENT_TYPE
from topology.records import JSON_KINDS, SCHEMA_VERSION, ProductDetected, Record
from topology.settings import Settings
from topology.topics import TOPICS, TopicSpec

FOLDER = Path(__file__).parent

RECORDS: dict[str, type[Record] | type[ProductDetected]] = {
    topics.LIVE_STREAMS: records.StreamAnnounced,
    topics.STREAM_STATUS: records.StreamStatus,
    topics.LIVE_FRAMES: records.Frame,
    topics.LIVE_SPEECH: records.Speech,
    topics.LIVE_KEYWORDS: records.Keywords,
    topics.LIVE_WINDOWS: records.WindowEmbedding,
    topics.RECOGNITION_STATE: records.RecognitionState,
    topics.PRODUCT_PAGES: records.ProductPage,
    topics.PAGE_VECTORS: records.PageVectors,
    topics.PRODUCT_DETECTED: records.ProductDetected,
    topics.DETECTION_VERDICTS: records.Verdict,
}
"""What each topic carries. Dead-letter queues carry the original bytes of their source."""

_DEAD_LETTER_HEADERS = {
    "topic": "Where the record came from, without the prefix.",
    "partition": "Its partition there.",
    "offset": "Its offset there.",
    "error": "Class of the error.",
    "message": "What was wrong.",
    "attempts": "How often it was tried.",
}
_CLOUD_EVENT_HEADERS = {
    "ce_specversion": "1.0",
    "ce_id": "detection_id.status.emitted_media_ms: the same when the event is sent again.",
    "ce_type": CLOUD_EVENT_TYPE,
    "ce_source": "/streams/<stream_id>",
    "ce_subject": "The product_id.",
    "ce_time": "detected_at.",
    "content-type": "application/json",
}


def product_detected_schema() -> dict[str, Any]:
    """Returns the JSON Schema (2020-12) of the values of `product_detected`."""
    (root,), components = msgspec.json.schema_components([ProductDetected], ref_template="#/$defs/{name}")
    _describe(components)
    name = root["$ref"].rsplit("/", 1)[-1]
    schema = components.pop(name)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:cope-live:product_detected:v{SCHEMA_VERSION}",
        **schema,
        "$defs": components,
    }


def asyncapi() -> dict[str, Any]:
    """Returns the AsyncAPI 3.0 document of all topics, with the default settings' partition counts."""
    _, schemas = msgspec.json.schema_components(set(RECORDS.values()), ref_template="#/components/schemas/{name}")
    _describe(schemas)
    messages = {kind.__name__: _message(kind) for kind in RECORDS.values()}
    messages["DeadLetter"] = {
        "summary": "A record that could not be processed: its original bytes.",
        "headers": _headers(_DEAD_LETTER_HEADERS),
        "payload": {},
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "cope-live",
            "version": f"{SCHEMA_VERSION}.0.0",
            "description": (
                "Topics of the live-commerce product recognizer. `product_detected` is for everyone, `live_streams` "
                "and `product_pages` are written by the platform, in MessagePack or JSON; the others are internal. "
                "Topic names are preceded by the setting COPE_TOPIC_PREFIX. Bytes fields are shown as base64; in "
                "MessagePack they are binary."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/x-msgpack",
        "channels": {name: _channel(spec) for name, spec in TOPICS.items()},
        "operations": {
            "announceStream": _operation("receive", topics.LIVE_STREAMS, "A live room begins or ends."),
            "putProductPage": _operation("receive", topics.PRODUCT_PAGES, "The catalogue has a new or changed page."),
            "detectProduct": _operation("send", topics.PRODUCT_DETECTED, "A product is being shown in a stream."),
        },
        "components": {"messages": messages, "schemas": dict(sorted(schemas.items()))},
    }


def documents() -> dict[Path, str]:
    """Returns the text of each generated file by its path."""
    contents = {"product_detected.schema.json": product_detected_schema(), "asyncapi.json": asyncapi()}
    return {FOLDER / name: json.dumps(document, indent=2) + "\n" for name, document in contents.items()}


def _message(kind: type[Record] | type[ProductDetected]) -> dict[str, Any]:
    message: dict[str, Any] = {
        "summary": _sections(kind)[0],
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
    }
    if kind in JSON_KINDS:
        message["description"] = (
            "MessagePack, or JSON: told by content. In JSON, bytes are base64 and the field `v` may be left out. The "
            "key is the record's own id."
        )
    if kind is ProductDetected:
        message |= {"contentType": "application/json", "headers": _headers(_CLOUD_EVENT_HEADERS)}
    return message


def _channel(spec: TopicSpec) -> dict[str, Any]:
    kind = RECORDS.get(spec.name)
    name = "DeadLetter" if kind is None else kind.__name__
    config: dict[str, Any] = {"cleanup.policy": ["compact"], "max.message.bytes": spec.max_message_bytes}
    if spec.retention_ms is not None:
        config |= {"cleanup.policy": ["delete"], "retention.ms": spec.retention_ms}
    kafka = {"partitions": spec.partitions(_DEFAULTS), "topicConfiguration": config, "bindingVersion": "0.5.0"}
    return {
        "address": spec.name,
        "description": f"Keyed by {spec.keyed_by}_id.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {"kafka": kafka},
    }


def _operation(action: str, topic: str, summary: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{topic}"}, "summary": summary}


def _headers(names: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": text} for name, text in names.items()},
        "required": list(names),
    }


def _describe(schemas: dict[str, Any]) -> None:
    """Moves what the docstrings say of attributes to the properties of the schemas."""
    for name, schema in schemas.items():
        kind = getattr(records, name)
        schema["description"], attributes = _sections(kind)
        for field, text in attributes.items():
            # A reference may not have siblings in all readers of AsyncAPI.
            if field in schema.get("properties", {}) and "$ref" not in schema["properties"][field]:
                schema["properties"][field]["description"] = text


def _sections(kind: type) -> tuple[str, dict[str, str]]:
    """Returns a Google-style docstring's text in one line, and its attributes by name."""
    text, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:")
    entries = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", attributes, flags=re.MULTILINE)
    return " ".join(text.split()), {name: " ".join(description.split()) for name, description in entries}


# The documents do not depend on the environment of whoever generates them.
_DEFAULTS = Settings.model_construct()
