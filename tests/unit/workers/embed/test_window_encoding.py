from types import SimpleNamespace
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from cope.serving.encoder import FrameFeatures
from cope.vision import decoding
from topology.errors import BadInput
from topology.records import Frame, FrameRegions, Keyword, Keywords, ReadLine, Said, WindowEmbedding, decode, encode
from topology.settings import load_settings
from workers.embed.encoding import MAX_FRAMES, SeenFrame, content_of, decode_frame, is_read, weigh, window_record
from workers.embed.parts import KeywordsIn, Window


def message(value: Any) -> Any:
    return SimpleNamespace(value=value, offset=7)


def heard(start_ms: int, end_ms: int, text: str = "", **weights: float) -> KeywordsIn[Any]:
    keywords = tuple(Keyword(text, weight) for text, weight in weights.items())
    record = Keywords(
        stream_id="s", epoch=0, start_ms=start_ms, end_ms=end_ms, captured_at_ms=0, text=text, keywords=keywords
    )
    return KeywordsIn("s", 0, start_ms, end_ms, 0, message(record))


def frame(pts_ms: int, jpeg: bytes = b"") -> Frame:
    return Frame(stream_id="s", epoch=0, pts_ms=pts_ms, captured_at_ms=70 + pts_ms, jpeg=jpeg, product_ids=("p",))


def seen(pts_ms: int, error: BadInput | None = None) -> SeenFrame:
    features = FrameFeatures(
        np.full((2, 4), 0.5, np.float16), np.array([0.9, 0.25], np.float32), np.zeros((2, 4), np.float32)
    )
    return SeenFrame(message(frame(pts_ms)), None if error else features, error)


def window(*frames: SeenFrame, keywords: tuple[KeywordsIn[Any], ...] = ()) -> Window[SeenFrame, Any]:
    return Window("s", 0, 0, 8_000, False, frames[-1], frames, keywords)


def test_a_jpeg_becomes_rgb() -> None:
    picture = np.zeros((8, 16, 3), np.uint8)
    picture[:] = (200, 10, 30)
    decoded = decode_frame(frame(0, cv2.imencode(".jpg", picture[:, :, ::-1])[1].tobytes()))
    assert decoded.shape == (8, 16, 3) and decoded.dtype == np.uint8
    assert np.abs(decoded.reshape(-1, 3).mean(axis=0) - (200, 10, 30)).max() < 4


@pytest.mark.parametrize(
    "data", [b"", b"nothing", b"\xff\xd8\xff\xe0", cv2.imencode(".jpg", np.zeros((4, 4, 3)))[1].tobytes()]
)
def test_what_is_no_picture_is_bad_input(data: bytes) -> None:
    with pytest.raises(BadInput, match="frame 0/5 ms of s"):
        decode_frame(frame(5, data))


def test_a_picture_that_would_fill_memory_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    with pytest.raises(BadInput, match="16 × 8"):
        decode_frame(frame(0, cv2.imencode(".jpg", np.zeros((8, 16, 3)))[1].tobytes()))


def test_keywords_of_the_window_keep_their_weight_and_older_ones_fade() -> None:
    weighed = weigh([heard(0, 10_000, lamp=0.8), heard(18_000, 21_000, vase=0.5)], 20_000, 20_000)
    assert [(one.text, round(one.weight, 3)) for one in weighed] == [("vase", 0.5), ("lamp", 0.4)]


def test_a_keyword_counts_once_as_strongly_as_it_was_heard() -> None:
    weighed = weigh([heard(0, 10_000, lamp=1.0), heard(20_000, 21_000, lamp=0.7)], 20_000, 20_000)
    assert weighed == (Keyword("lamp", 0.7),)


def test_keywords_without_look_back_do_not_divide_by_it() -> None:
    assert weigh([heard(20_000, 21_000, lamp=0.7)], 20_000, 0) == (Keyword("lamp", 0.7),)


def test_frames_that_could_not_be_encoded_are_left_out() -> None:
    content = content_of(window(seen(0), seen(1_000, BadInput("broken")), seen(2_000)), 20_000)
    assert [one.message.value.pts_ms for one in content.frames] == [0, 2_000]


def test_many_frames_are_thinned_evenly() -> None:
    content = content_of(window(*(seen(index * 33) for index in range(240))), 20_000)
    times = [one.message.value.pts_ms for one in content.frames]
    assert len(times) == MAX_FRAMES and times[0] == 0
    assert max(np.diff(times)) <= -(-240 // MAX_FRAMES) * 33


def test_the_record_says_what_is_in_the_window() -> None:
    closed = window(seen(0), seen(1_000), keywords=(heard(0, 4_000, lamp=0.8),))
    record = window_record(closed, content_of(closed, 20_000), np.ones(4, np.float16), [], 2_000, "m@1")
    assert (record.start_ms, record.end_ms, record.hop_ms, record.captured_at_ms) == (0, 8_000, 2_000, 1_070)
    assert np.frombuffer(record.embedding, "<f2").tolist() == [1, 1, 1, 1]
    assert record.frames[1].pts_ms == 1_000 and record.frames[1].salience == pytest.approx((0.9, 0.25))
    assert np.frombuffer(record.frames[1].regions, "<f2").shape == (8,)
    assert record.keywords == (Keyword("lamp", 0.8),) and record.product_ids == ("p",) and record.model_version == "m@1"


def test_what_was_said_travels_with_its_weight() -> None:
    said = (
        heard(-14_000, -10_000, "a lamp"),
        heard(-4_000, 0),
        heard(0, 4_000, "strong light"),
        heard(4_600, 6_000, "hm"),
    )
    content = content_of(window(seen(0), keywords=said), 20_000)
    assert content.said == (("a lamp", 0.5), ("strong light", 1.0), ("hm", 1.0))
    vectors = [*np.eye(2, dtype=np.float16), np.zeros(0, np.float16)]
    record = window_record(window(seen(0)), content, None, vectors, 2_000, "m@1")
    assert record.speech == (Said(vectors[0].tobytes(), 0.5), Said(vectors[1].tobytes(), 1.0))


def test_pieces_of_one_sentence_are_heard_together() -> None:
    said = (
        heard(0, 2_900, "Next is the standard milk,"),
        heard(2_900, 3_000),  # a breath
        heard(3_000, 5_200, "from farms that care."),
        heard(5_200, 8_000, "It comes in a carton."),  # three would be too long
        heard(8_600, 9_000, "Well."),  # after a pause
    )
    content = content_of(window(seen(0), keywords=said), 20_000)
    assert [text for text, _ in content.said] == [
        "Next is the standard milk, from farms that care.",
        "It comes in a carton.",
        "Well.",
    ]


def test_the_largest_window_fits_into_its_topic() -> None:
    from topology.records import encode
    from topology.topics import LIVE_WINDOWS, TOPICS

    features = FrameFeatures(np.ones((8, 512), np.float16), np.ones(8, np.float32), np.zeros((8, 4), np.float32))
    full = window(*(SeenFrame(message(frame(index)), features) for index in range(MAX_FRAMES)))
    record = window_record(full, content_of(full, 0), np.ones(512, np.float16), [], 2_000, "m@1")
    assert len(encode(record)) < TOPICS[LIVE_WINDOWS].max_message_bytes * 0.6


def test_one_frame_of_so_many_is_read_wherever_reading_began() -> None:
    times = [40 + 1_000 * second for second in range(8)]
    chosen = [pts_ms for pts_ms in times if is_read(pts_ms, load_settings())]
    assert chosen == [40, 4_040]
    assert [pts_ms for pts_ms in times[3:] if is_read(pts_ms, load_settings())] == [4_040]
    assert is_read(2_040, load_settings(read_every_ms=2_000))
    assert all(is_read(pts_ms, load_settings(sampling="keyframes")) for pts_ms in times)


def test_the_record_says_where_regions_are_and_what_was_read() -> None:
    line = ReadLine("ORANGE", 0.9, (0.1, 0.2, 0.3, 0.4))
    one = seen(0)
    closed = window(SeenFrame(one.message, one.features, read=(line,)))
    record = decode(encode(window_record(closed, content_of(closed, 0), None, [], 2_000, "m@1")), WindowEmbedding)
    (regions,) = record.frames
    assert regions.read == (line,) and regions.captured_at_ms == 70
    assert np.frombuffer(regions.boxes, "<f4").shape == (8,)


def test_a_frame_s_record_may_lack_boxes_and_words() -> None:
    old = msgspec.msgpack.encode([5, b"", []])
    assert msgspec.msgpack.decode(old, type=FrameRegions) == FrameRegions(5, b"", ())
