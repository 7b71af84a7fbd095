import dataclasses
import hashlib
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from cope.towers.reading import open_reader
from topology.errors import UserError
from workers.cli.simulate.command import simulate_command
from workers.cli.simulate.recipe import Recipe
from workers.cli.simulate.stream import Simulated, simulate
from workers.cli.simulate.writer import write_stream
from workers.cli.truth import read_truth

pytestmark = pytest.mark.slow

# Small and silent: 4 s take a second.
SMALL = Recipe(seed=3, duration_s=4.0, size=(160, 90), fps=10, voice="none")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalog")
    rows = []
    for number, colour in enumerate([(0, 0, 200, 255), (0, 180, 0, 255), (200, 0, 0, 255)]):
        image = np.zeros((80, 60, 4), np.uint8)
        image[10:70, 10:50] = colour
        cv2.imwrite(str(folder / f"{number}.png"), image)
        rows.append({"product_id": f"p-{number}", "title": f"Thing {number}", "images": [f"{number}.png"]})
    path = folder / "catalog.jsonl"
    path.write_text("\n".join(json.dumps(row | {"price": "15.00 USD"}) for row in rows))
    return path


@pytest.fixture(scope="module")
def made(catalog: Path) -> tuple[Path, Simulated]:
    folder = catalog.parent
    recipe = dataclasses.replace(SMALL, products=("p-0",))
    return folder / "clip.mp4", simulate(catalog, str(folder / "clip.mp4"), recipe, truth=folder / "clip.truth.jsonl")


def test_the_clip_is_h264_and_aac_of_the_asked_length(made: tuple[Path, Simulated]) -> None:
    with av.open(str(made[0])) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert (picture.codec_context.name, sound.codec_context.name) == ("h264", "aac")
        assert (picture.width, picture.height) == (160, 90)
        assert picture.average_rate == 10
        assert float(picture.duration * picture.time_base) == pytest.approx(4.0, abs=0.05)
        assert float(sound.duration * sound.time_base) == pytest.approx(4.0, abs=0.1)


def test_there_is_a_keyframe_every_two_seconds(made: tuple[Path, Simulated]) -> None:
    with av.open(str(made[0])) as container:
        times = [float(packet.pts * packet.time_base) for packet in container.demux(video=0) if packet.is_keyframe]
    assert times == pytest.approx([0.0, 2.0])


def test_the_truth_is_what_the_frames_show(made: tuple[Path, Simulated]) -> None:
    path, simulated = made
    truth = read_truth(path.with_name("clip.truth.jsonl"))["clip"]
    assert truth == simulated.truth
    assert truth.duration_ms == 4000
    [showing] = truth.showings
    assert showing.product_id == "p-0"
    with av.open(str(path)) as container:
        reds = []
        for frame in container.decode(video=0):
            pixels = frame.to_ndarray(format="rgb24").astype(int)[20:70]
            red = (pixels[..., 0] > 90) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)
            reds.append((frame.time * 1000, float(red.mean())))
    shown = [red for at_ms, red in reds if showing.start_ms <= at_ms < showing.end_ms]
    hidden = [red for at_ms, red in reds if at_ms < showing.start_ms - 400 or at_ms > showing.end_ms + 400]
    assert np.mean(shown) > 0.02
    assert not hidden or np.mean(hidden) < np.mean(shown) / 3


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_others(catalog: Path, tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a.mkv", 3), ("b.mkv", 3), ("c.mkv", 4)):
        simulate(catalog, str(tmp_path / name), dataclasses.replace(SMALL, seed=seed, duration_s=1.0))
        with av.open(str(tmp_path / name)) as container:
            data = b"".join(bytes(packet) for packet in container.demux(video=0) if packet.size)
        digests.append(hashlib.sha256(data).hexdigest())
    assert digests[0] == digests[1] != digests[2]


def test_titles_stand_on_the_screen_while_their_product_is_shown(catalog: Path, tmp_path: Path) -> None:
    pytest.importorskip("rapidocr")
    recipe = dataclasses.replace(SMALL, size=(640, 360), fps=2, products=("p-1",), titles=1.0)
    (showing,) = simulate(catalog, str(tmp_path / "a.mp4"), recipe).truth.showings
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = [(1000 * frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    reader = open_reader("packaged:ppocr", 1)
    titled = [at_ms for at_ms, pixels in frames if any("hing 1" in line.text for line in reader.read(pixels))]
    assert titled and all(showing.start_ms <= at_ms <= showing.end_ms for at_ms in titled)


def test_flv_is_written(catalog: Path, tmp_path: Path) -> None:
    simulate(catalog, str(tmp_path / "a.flv"), dataclasses.replace(SMALL, duration_s=1.0))
    with av.open(str(tmp_path / "a.flv")) as container:
        assert container.format.name == "flv"
        assert len(list(container.decode(video=0))) == 10


def test_the_english_voice_speaks(catalog: Path, tmp_path: Path) -> None:
    pytest.importorskip("hibari")
    recipe = dataclasses.replace(SMALL, voice="default", duration_s=5.0)
    made = simulate(catalog, str(tmp_path / "a.mp4"), recipe)
    assert made.said
    with av.open(str(tmp_path / "a.mp4")) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    first_s = made.said[0][0]
    rate = 44_100
    assert np.abs(sound[int((first_s + 0.3) * rate) : int((first_s + 1.3) * rate)]).mean() > 0.01
    assert np.abs(sound[: int(0.2 * rate)]).mean() < 0.01


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("room.avi", "unknown kind of video file"),
        ("none/room.mp4", "its folder does not exist"),
        ("http://127.0.0.1/room", "cannot push to http://"),
    ],
)
def test_a_bad_target_is_named(catalog: Path, tmp_path: Path, target: str, words: str) -> None:
    where = target if "://" in target else str(tmp_path / target)
    with pytest.raises(UserError, match=words) as caught:
        simulate(catalog, where, SMALL)
    assert str(caught.value).startswith(where)


def test_a_server_that_is_down_is_named(catalog: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"rtmp://127.0.0.1:{closed.getsockname()[1]}/live/room"
        with pytest.raises(UserError, match="is the server up"):
            simulate(catalog, url, SMALL)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    target = tmp_path / "room.flv"
    target.symlink_to(full)
    track, still = np.zeros(48_000, np.float32), np.zeros((90, 160, 3), np.uint8)
    with pytest.raises(UserError, match="free some space"):
        write_stream(str(target), lambda index: still, 20, track, size=(160, 90), fps=10)


def test_a_push_arrives_at_the_speed_of_its_clock(catalog: Path, tmp_path: Path) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("no ffmpeg, which listens here")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, received = f"rtmp://127.0.0.1:{port}/live/room", tmp_path / "received.flv"
    command = [ffmpeg, "-v", "error", "-timeout", "20", "-listen", "1", "-i", url, "-c", "copy", str(received)]
    with subprocess.Popen(command) as listener:
        try:
            # A port that listens is taken; asking it by a connection would be the one that it waits for.
            until = time.monotonic() + 20
            while time.monotonic() < until and not _taken(port):
                time.sleep(0.02)
            started = time.monotonic()
            made = simulate(catalog, url, dataclasses.replace(SMALL, duration_s=2.0))
            took_s = time.monotonic() - started
            listener.wait(timeout=20)
        finally:
            listener.kill()
    assert made.truth.stream_id == "room"
    assert took_s >= 1.9
    with av.open(str(received)) as container:
        assert len(list(container.decode(video=0))) == 20


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def test_the_command_writes_stream_and_truth(catalog: Path, tmp_path: Path) -> None:
    out, truth = tmp_path / "room.mp4", tmp_path / "truth.jsonl"
    arguments = [str(catalog), "--out", str(out), "--truth", str(truth), "--duration", "1", "--size", "64x64"]
    result = CliRunner().invoke(simulate_command, [*arguments, "--voice", "none"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "1 showings" in result.output
    assert set(read_truth(truth)) == {"room"}
    with av.open(str(out)) as container:
        assert container.streams.video[0].width == 64


def test_a_broken_picture_of_the_catalogue_is_named(catalog: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    broken = tmp_path / "catalog.jsonl"
    broken.write_text('{"product_id": "p", "title": "t", "images": ["a.png"]}')
    with pytest.raises(UserError, match=r"a\.png: not an image"):
        simulate(broken, str(tmp_path / "a.mp4"), SMALL)


def test_distractors_and_unknown_products_are_checked(catalog: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="no such folder of distractors"):
        simulate(catalog, target, dataclasses.replace(SMALL, distractors=tmp_path / "none"))
    with pytest.raises(UserError, match="no photo of a distractor"):
        simulate(catalog, target, dataclasses.replace(SMALL, distractors=tmp_path))
    with pytest.raises(UserError, match="no such folder of background photos"):
        simulate(catalog, target, dataclasses.replace(SMALL, backgrounds=tmp_path / "none"))
    with pytest.raises(UserError, match="no product 'p-9'"):
        simulate(catalog, target, dataclasses.replace(SMALL, products=("p-9",)))
