import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology.settings import Settings
from workers.capture.media import Picture
from workers.capture.sampler import QUIET_MS, Sampler, upright


def picture(pts_ms: int, shade: int = 0, *, keyframe: bool = False) -> Picture:
    return Picture(pts_ms, lambda: np.full((36, 64, 3), shade, np.uint8), keyframe=keyframe)


def sampled(sampler: Sampler, pictures: list[Picture]) -> list[int]:
    return [p.pts_ms for p in pictures if sampler.take(p) is not None]


def config(**changes: object) -> Settings:
    return Settings(_env_file=None).model_copy(update=changes)


def test_a_fixed_rate_takes_the_first_picture_of_each_second() -> None:
    pictures = [picture(i * 40) for i in range(100)]
    assert sampled(Sampler(config()), pictures) == [0, 1000, 2000, 3000]


def test_a_fixed_rate_lies_on_the_grid_though_pictures_do_not() -> None:
    assert sampled(Sampler(config()), [picture(t) for t in (300, 900, 1700, 1990, 2010, 4500)]) == [
        300,
        1700,
        2010,
        4500,
    ]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 20_000), max_size=60), st.sampled_from([0.5, 1.0, 2.0, 3.0, 29.97]))
def test_each_slot_of_the_grid_gives_its_first_picture(times: list[int], rate: float) -> None:
    times = sorted(set(times))
    taken = sampled(Sampler(config(frames_per_second=rate)), [picture(t) for t in times])
    firsts: dict[int, int] = {}
    for time in times:
        firsts.setdefault(int(time * rate / 1000 + 1e-9), time)
    assert taken == list(firsts.values())


@given(st.lists(st.integers(0, 20_000), max_size=60))
def test_pictures_out_of_order_are_left_out(times: list[int]) -> None:
    taken = sampled(Sampler(config(frames_per_second=30)), [picture(t) for t in times])
    assert taken == sorted(set(taken))


def test_keyframes_only() -> None:
    pictures = [picture(i * 500, keyframe=i % 4 == 0) for i in range(12)]
    assert sampled(Sampler(config(sampling="keyframes")), pictures) == [0, 2000, 4000]


def test_change_takes_what_differs_and_a_sign_of_life() -> None:
    pictures = [picture(i * 1000, shade=200 if i >= 3 else 50) for i in range(12)]
    assert sampled(Sampler(config(sampling="change")), pictures) == [0, 3000, 3000 + QUIET_MS, 3000 + 2 * QUIET_MS]


def test_near_duplicates_are_marked() -> None:
    sampler = Sampler(config())
    marks = [sampler.take(picture(i * 1000, shade)) for i, shade in enumerate((50, 52, 90, 91))]
    assert [m.duplicate for m in marks if m] == [False, True, False, True]


def test_a_slow_fade_is_not_one_long_duplicate() -> None:
    sampler = Sampler(config())
    marks = [sampler.take(picture(i * 1000, i * 4)) for i in range(10)]
    assert sum(not m.duplicate for m in marks if m) >= 4


def test_a_small_thing_that_moves_is_no_duplicate() -> None:
    def scene(x: int) -> np.ndarray:
        image = np.full((360, 640, 3), 128, np.uint8)
        cv2.circle(image, (x, 200), 12, (0, 0, 255), -1)
        return image

    sampler = Sampler(config())
    sampler.take(Picture(0, lambda: scene(100)))
    moved = sampler.take(Picture(1000, lambda: scene(140)))
    assert moved is not None and not moved.duplicate


@pytest.mark.parametrize(
    ("shape", "rotation", "aspect", "height", "expected"),
    [
        ((1080, 1920), 0, 1.0, 360, (360, 640)),
        ((240, 320), 0, 1.0, 360, (240, 320)),
        ((1080, 1920), 90, 1.0, 360, (360, 202)),
        ((1080, 1920), -90, 1.0, 360, (360, 202)),
        ((1080, 1920), 180, 1.0, 360, (360, 640)),
        ((576, 720), 0, 16 / 15, 360, (360, 480)),
        ((480, 720), 0, 8 / 9, 360, (360, 480)),
        ((333, 251), 0, 1.0, 360, (333, 251)),
        ((2, 2), 0, 1.0, 360, (2, 2)),
    ],
)
def test_pictures_are_upright_with_square_pixels_and_never_enlarged(
    shape: tuple[int, int], rotation: int, aspect: float, height: int, expected: tuple[int, int]
) -> None:
    made = Picture(0, lambda: np.zeros((*shape, 3), np.uint8), rotation=rotation, pixel_aspect=aspect)
    assert upright(made, height).shape == (*expected, 3)


def test_rotation_turns_counter_clockwise() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, -20:] = 255  # bright on the right
    turned = upright(Picture(0, lambda: image, rotation=90), 360)
    assert turned[0].all() and not turned[-1].any()


def test_a_sample_becomes_jpeg() -> None:
    sample = Sampler(config()).take(picture(0, 100))
    assert sample is not None
    decoded = cv2.imdecode(np.frombuffer(sample.jpeg(90), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape == (36, 64, 3) and abs(int(decoded.mean()) - 100) < 3
