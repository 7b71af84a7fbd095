"""Encrypted HLS (RFC 8216, 4.3.2.4 and 5.2): the key has an address of its own."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from Crypto.Cipher import AES
from Crypto.Util.Padding import pad

from tests.integration.workers.capture.http_media import MediaServer, media_server, playlist
from tests.integration.workers.capture.media_files import write_video
from tests.integration.workers.capture.played import play, times
from workers.capture.media import BadSource, NewEpoch, SourceDown

KEY, IV = b"0123456789abcdef", bytes(range(16))


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("segments")
    return [write_video(folder / f"{number}.ts", 2, start=2.0 * number).read_bytes() for number in range(3)]


@pytest.fixture
def server() -> Iterator[MediaServer]:
    with media_server() as serving:
        yield serving


def encrypted(data: bytes, key: bytes, iv: bytes) -> bytes:
    return AES.new(key, AES.MODE_CBC, iv).encrypt(pad(data, 16))


def serve(
    server: MediaServer, segments: Sequence[bytes], key_line: str, *, first: int = 0, keys: Sequence[bytes] = (KEY,)
) -> str:
    """Serves a recording, encrypted with one key or one for each segment, which is NUMBER in the line; its address."""
    text = playlist(seconds=2, first=first, closed=False)
    for number, data in enumerate(segments):
        key = keys[number % len(keys)]
        iv = IV if "IV=" in key_line else (first + number).to_bytes(16, "big")
        server.files[f"hls/{number}.ts"] = encrypted(data, key, iv)
        text += f"#EXT-X-KEY:METHOD=AES-128,{key_line}\n".replace("NUMBER", str(number))
        text += f"#EXTINF:2,\n{number}.ts\n"
    server.files["hls/a.m3u8"] = f"{text}#EXT-X-ENDLIST\n".encode()
    return server.url("hls/a.m3u8")


# All addresses are allowed, or each is asked for through the proxy that checks them.
NETWORKS = pytest.mark.parametrize("networks", ["0.0.0.0/0", "127.0.0.1"])


@NETWORKS
@pytest.mark.parametrize("iv", ["", f",IV=0x{IV.hex()}"])
@pytest.mark.parametrize("address", ["k.bin?token=a%2Fb", "/keys/k.bin", "http://HOST/keys/k.bin"])
def test_an_encrypted_recording_is_played(
    server: MediaServer, segments: list[bytes], networks: str, iv: str, address: str
) -> None:
    server.files["hls/k.bin?token=a%2Fb"] = server.files["keys/k.bin"] = KEY
    host = server.url("").split("/")[2]
    url = serve(server, segments, f'URI="{address.replace("HOST", host)}"{iv}', first=7)
    source, items = play(url, frames_per_second=10, allowed_networks=networks)
    assert len(times(items)) == 60 and source.detail == ""
    assert not any(isinstance(item, NewEpoch) for item in items)


def test_keys_that_change_are_followed_also_behind_variants(server: MediaServer, segments: list[bytes]) -> None:
    keys = [bytes([number]) * 16 for number in range(3)]
    server.files |= {f"hls/{number}.key": key for number, key in enumerate(keys)}
    serve(server, segments, 'URI="NUMBER.key"', keys=keys)
    server.files["master.m3u8"] = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhls/a.m3u8\n"
    assert len(times(play(server.url("master.m3u8"), frames_per_second=10)[1])) == 60


def test_segments_of_which_the_key_is_missing_are_lost_and_the_others_played(
    server: MediaServer, segments: list[bytes]
) -> None:
    server.files |= {"hls/0.key": KEY, "hls/2.key": KEY}
    source, items = play(serve(server, segments, 'URI="NUMBER.key"'), frames_per_second=10)
    assert len(times(items)) == 40
    assert re.match(r"[12]\.\d s of the picture were lost", source.detail)


@NETWORKS
@pytest.mark.parametrize(
    ("key_line", "told"),
    [
        ('URI="gone.key"', r"its key http\S+/hls/gone.key cannot be had \(Not Found\)"),
        ('URI="short.key"', "has 3 bytes instead of 16"),
        ('URI="other.key"', "is not that of its segments"),
        ('URI="file:///etc/hostname"', "its key file:///etc/hostname is at no address that can be opened"),
    ],
)
def test_a_key_that_is_missing_or_wrong_is_one_line(
    server: MediaServer, segments: list[bytes], networks: str, key_line: str, told: str
) -> None:
    server.files |= {"hls/short.key": b"abc", "hls/other.key": b"x" * 16}
    url = serve(server, segments, key_line)
    with pytest.raises(SourceDown, match=told) as caught:
        play(url, allowed_networks=networks)
    assert "\n" not in str(caught.value)


def test_a_key_at_an_address_that_is_not_allowed_is_not_asked_for(server: MediaServer, segments: list[bytes]) -> None:
    server.files["k.bin"] = KEY
    url = serve(server, segments, f'URI="{server.url("k.bin")}"').replace("127.0.0.1", "localhost")
    with pytest.raises(SourceDown, match=r"its key \S+ cannot be had \(Forbidden\)"):
        play(url, allowed_networks="localhost", open_timeout_s=5.0)
    assert "k.bin" not in server.asked


def test_what_is_protected_in_another_way_says_so(server: MediaServer, segments: list[bytes]) -> None:
    url = serve(server, segments, 'URI="skd://key",KEYFORMAT="com.apple.streamingkeydelivery"')
    text = server.files["hls/a.m3u8"]
    assert isinstance(text, bytes)
    server.files["hls/a.m3u8"] = text.replace(b"METHOD=AES-128", b"METHOD=SAMPLE-AES")
    with pytest.raises(BadSource, match=r"protected \(SAMPLE-AES\), which is not decrypted here"):
        play(url)


def test_an_encrypted_recording_on_disk_is_played(tmp_path: Path, segments: list[bytes]) -> None:
    (tmp_path / "0.ts").write_bytes(encrypted(segments[0], KEY, IV))
    lines = f'#EXT-X-KEY:METHOD=AES-128,URI="k.bin",IV=0x{IV.hex()}\n#EXTINF'
    (tmp_path / "a.m3u8").write_text(playlist("0.ts", seconds=2).replace("#EXTINF", lines))
    with pytest.raises(SourceDown, match=r"its key \S+k.bin cannot be had \(.*No such file"):
        play(tmp_path / "a.m3u8")
    (tmp_path / "k.bin").write_bytes(KEY)
    assert len(times(play(tmp_path / "a.m3u8", frames_per_second=10)[1])) == 20
