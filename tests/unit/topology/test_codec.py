"""Records as Kafka messages: what is written can be read, what is not ours is refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.codec import cloud_event_headers, decode_key, decode_value, encode_key, encode_value
from topology.errors import BadInput, NewerSchema
from topology.records import (
    SCHEMA_VERSION,
    Frame,
    Keyword,
    Keywords,
    PageImage,
    ProductDetected,
    ProductPage,
    Speech,
    StreamAnnounced,
)

texts = st.text(max_size=20)


@given(
    st.builds(
        Keywords,
        stream_id=st.text(min_size=1, max_size=20),
        epoch=st.integers(0, 9),
        start_ms=st.integers(0, 2**40),
        end_ms=st.integers(0, 2**40),
        captured_at_ms=st.integers(0, 2**42),
        text=texts,
        keywords=st.lists(st.builds(Keyword, text=texts, weight=st.floats(0, 1)), max_size=5).map(tuple),
        end_of_epoch=st.booleans(),
    )
)
def test_a_record_survives_the_wire(record: Keywords) -> None:
    value, headers = encode_value(record)
    assert headers == []
    assert decode_value(value, Keywords) == record


def test_an_event_is_json_with_cloud_event_headers(event: ProductDetected) -> None:
    value, headers = encode_value(event)
    assert msgspec.json.decode(value)["product_id"] == "p-42"
    assert decode_value(value, ProductDetected) == event
    assert dict(headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"7d3c9f1e-0000-5000-8000-000000000000.started.14000",
        "ce_type": b"cope.product_detected.v1",
        "ce_source": b"/streams/room-7",
        "ce_subject": b"p-42",
        "ce_time": b"2026-01-01T00:00:00.000Z",
        "content-type": b"application/json",
    }


def test_the_same_event_sent_again_has_the_same_id(event: ProductDetected) -> None:
    again = msgspec.structs.replace(event, detected_at="2026-01-01T00:00:09.000Z", latency_ms=9_000)
    assert dict(cloud_event_headers(again))["ce_id"] == dict(cloud_event_headers(event))["ce_id"]


def test_a_stream_id_that_is_no_uri_still_gives_a_uri_as_source(event: ProductDetected) -> None:
    renamed = msgspec.structs.replace(event, stream_id="直播 7?")
    source = dict(cloud_event_headers(renamed))["ce_source"]
    assert source == b"/streams/%E7%9B%B4%E6%92%AD%207%3F"


def test_a_field_that_a_newer_writer_added_is_skipped() -> None:
    value = msgspec.msgpack.encode(
        {"stream_id": "s", "epoch": 0, "pts_ms": 1, "captured_at_ms": 2, "v": SCHEMA_VERSION, "mood": "sunny"}
    )
    assert decode_value(value, Frame) == Frame(stream_id="s", epoch=0, pts_ms=1, captured_at_ms=2)


def test_a_newer_schema_is_refused_and_named() -> None:
    frame = Frame(stream_id="s", epoch=0, pts_ms=1, captured_at_ms=2, v=SCHEMA_VERSION + 1)
    with pytest.raises(NewerSchema, match="upgrade"):
        decode_value(encode_value(frame)[0], Frame)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_record_are_bad_input(value: bytes) -> None:
    for kind in (Frame, ProductDetected):
        with pytest.raises(BadInput):
            decode_value(value, kind)


def test_another_kind_of_record_is_bad_input() -> None:
    speech = Speech(stream_id="s", epoch=0, start_ms=0, end_ms=1, captured_at_ms=0)
    with pytest.raises(BadInput, match="Frame"):
        decode_value(encode_value(speech)[0], Frame)


@given(texts)
def test_keys_survive_the_wire(key: str) -> None:
    assert decode_key(encode_key(key)) == key


def test_foreign_keys_are_read_as_well_as_possible() -> None:
    assert decode_key(None) == ""
    assert decode_key(b"\xff7") == "\ufffd7"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"[{}]", "neither MessagePack nor a JSON object, it begins with the bytes 5b 7b 7d 5d"),
        (b'"{}"', "neither MessagePack nor a JSON object"),
        (b'\0\0\0\0\x07{"stream_id": "s"}', "it begins with the bytes 00 00 00 00 07 7b"),
        ('{"stream_id": "s"}'.encode("utf-16-be"), "it begins with the bytes 00 7b"),
        (b"", "it is empty"),
        (b'{"stream_id": "a\\u001b[2J", "url": "a.mp4"}', r"a control character in its stream_id 'a\x1b[2J'"),
        (b'{"stream_id": "s", "url": "a.mp4\\n"}', "its url begins or ends with a space"),
        (b'{"stream_id": "s", "url": "a\\n.mp4"}', "its url has a control character"),
        (b'{"stream_id": "s", "url": " rtmp://h/a"}', "its url begins or ends with a space"),
        (
            b'{"stream_id": "s", "state": "over"}',
            "at `$.state`, expected one of live, ended",
        ),
        (
            '{"stream_id": "s"}'.encode("utf-16"),
            "a JSON object, it begins with the bytes ff fe",
        ),
        (b'{"schema": {}, "payload": {"stream_id": 7}}', "Expected `str`, got `int` - at `$.stream_id`"),
        (b'{"schema": {}, "payload": null}', "Expected `object`, got `null`"),
    ],
)
def test_an_announcement_that_is_none_is_told_by_what_it_is(value: bytes, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        decode_value(value, StreamAnnounced)
    assert said in str(caught.value)


def test_what_kafka_connect_wraps_beside_its_schema_is_read() -> None:
    value = b'{"schema": {"type": "struct"}, "payload": {"stream_id": "s", "url": "rtmp://h/a"}}'
    assert decode_value(value, StreamAnnounced) == StreamAnnounced(stream_id="s", url="rtmp://h/a")
    page = b'{"product_id": "p", "title": "t", "images": [], "attributes": {"payload": "9 kg", "schema": "x"}}'
    assert decode_value(page, ProductPage).attributes["payload"] == "9 kg"


def test_a_field_that_is_null_in_json_is_one_that_is_not_there() -> None:
    page = b"""{"product_id": "p", "title": "t", "description": null, "attributes": {"a": null, "b": "null"},
        "images": [{"uri": "https://s/1.jpg", "data": null}]}"""
    image = PageImage(uri="https://s/1.jpg")
    assert decode_value(page, ProductPage) == ProductPage(
        product_id="p", title="t", images=(image,), attributes={"b": "null"}
    )
    with pytest.raises(BadInput, match="missing required field `title`"):
        decode_value(b'{"product_id": "p", "title": null, "images": []}', ProductPage)


def test_a_frame_in_json_is_told_that_frames_are_messagepack() -> None:
    with pytest.raises(BadInput, match="not a Frame: it is not MessagePack, it begins with the bytes 7b"):
        decode_value(b"{}", Frame)
