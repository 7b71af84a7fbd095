import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.redact import LONGEST_TEXT, redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtmp://ann:secret@host/live/room", "rtmp://host/live/room"),
        ("rtsp://ann:se@cret@host:554/live", "rtsp://host:554/live"),
        ("rtsp://ann:se/cret@host/live", "rtsp://host/live"),
        ("rtsp://ann:se?cret#@host/live", "rtsp://host/live"),
        ("http://host/a.m3u8?token=secret", "http://host/a.m3u8"),
        ("http://host/a#secret", "http://host/a"),
        ("HTTPS://token@host", "HTTPS://host"),
        ('rtsp://ann:my "own" <se>cret@host/live', "rtsp://host/live"),
        ("http://host:80/a.ts failed, ask ann@shop", "http://host:80/a.ts failed, ask ann@shop"),
        ("http://[::1]:80/@name", "http://[::1]:80/@name"),
        ("https://host/@name/a.jpg", "https://host/@name/a.jpg"),
        ("open http://a:b@h/x?y='z' twice: http://c:d@h", "open http://h/x twice: http://h"),
        ("data:image/png;base64,secret no picture", "data:… no picture"),
        ("no such file: /a/b.mp4", "no such file: /a/b.mp4"),
    ],
)
def test_a_text_keeps_what_is_no_secret(text: str, shown: str) -> None:
    assert redacted(text) == shown


_WORD = st.text("abcXYZ09-_.~!$&'()*+,;=:/?#", min_size=1, max_size=12)


@given(_WORD, _WORD, st.sampled_from(["rtmp", "https", "srt"]))
def test_no_password_and_no_query_is_shown(password: str, query: str, scheme: str) -> None:
    text = f"cannot open {scheme}://user:Q{password}Q@host.example/live?Z{query}Z"
    assert "Q" not in redacted(text) or f"Q{password}Q" not in redacted(text)
    assert f"Z{query}Z" not in redacted(text)
    assert "user" not in redacted(text)


def test_long_texts_are_cut() -> None:
    assert len(redacted("http://h/" + "a" * 10_000)) < 300
    assert len(redacted("word " * 10_000)) <= LONGEST_TEXT + 1


def test_a_text_of_a_million_letters_takes_no_time_and_hides_what_follows() -> None:
    shown = redacted("u" * 1_500_000 + "http://user:secret@host/a")
    assert "secret" not in shown
    assert len(shown) < 3_000
