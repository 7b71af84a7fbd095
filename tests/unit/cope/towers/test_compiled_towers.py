"""The packaged towers by OpenVINO: the vectors of PyTorch, and the same bits whatever a picture is batched with."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cope.runtime.openvino import Compiled
from cope.towers.compiled import TEXT, VISION, frozen_text, frozen_vision
from cope.towers.packaged import text_tower, vision_tower
from cope.vision.pictures import fit_area, page_crop

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
TOLERANCE = 1 - 1e-5  # cosine; kernels add up in another order than PyTorch's
PHRASES = ("red bag", "stainless steel water bottle, 500 ml", "手提包", "")


def photos(pattern):
    paths = sorted(ROOT.glob(pattern))
    assert paths
    return [cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in paths]


@pytest.fixture(scope="module")
def crops():
    pictures = photos("samples/images/*.webp")[:11]
    return torch.from_numpy(np.stack([page_crop(one, 160, 0.1) for one in pictures])).permute(0, 3, 1, 2).float()


@pytest.fixture(scope="module")
def tower():
    return frozen_vision(VISION, threads=1)


@pytest.fixture(scope="module")
def by_torch():
    return vision_tower(VISION)


def cosine(found, wanted):
    return torch.nn.functional.cosine_similarity(found.flatten(1).double(), wanted.flatten(1).double()).min()


def test_pictures_are_described_as_by_torch(tower, by_torch, crops):
    with torch.inference_mode():
        assert cosine(tower.describe(crops), by_torch.describe(crops)) > TOLERANCE


def test_maps_are_those_of_torch_for_frames_of_any_shape(tower, by_torch):
    for photo in photos("cope/render/backgrounds/*.jpg")[:3]:
        for frame in (photo, photo.transpose(1, 0, 2)):
            small = fit_area(np.ascontiguousarray(frame), 320 * 576, tower.stride)
            pixels = torch.from_numpy(small)[None].permute(0, 3, 1, 2).float()
            with torch.inference_mode():
                for level, wanted in zip(tower.maps(pixels), by_torch.maps(pixels), strict=True):
                    assert level.shape == wanted.shape
                    assert cosine(level, wanted) > TOLERANCE


def test_a_crop_has_the_same_bits_alone_as_among_others(tower, crops):
    together = tower.describe(crops)  # eight in one call, three alone
    for number, crop in enumerate(crops):
        assert torch.equal(tower.describe(crop[None])[0], together[number])
    assert torch.equal(tower.describe(crops.flip(0)), together.flip(0))


def test_the_number_of_threads_changes_no_bit(tower, crops):
    assert torch.equal(frozen_vision(VISION, threads=2).describe(crops), tower.describe(crops))


def test_texts_are_read_as_by_torch():
    tower, by_torch = frozen_text(TEXT, threads=1), text_tower(TEXT)
    assert tower.width == by_torch.width
    for phrase in PHRASES:
        assert tower.tokenize(phrase, 16) == by_torch.tokenize(phrase, 16)
        with torch.inference_mode():
            assert cosine(tower.encode(phrase, 16)[None], by_torch.encode(phrase, 16)[None]) > TOLERANCE


class Doubled(torch.nn.Module):
    def forward(self, x):
        return 2 * x


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """compiled() is a small function that is kept below tmp_path; `compiled.made` counts how often it was made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def build(key="a", **options):
        def make():
            build.made += 1
            return Doubled(), torch.ones(1, 2)

        return Compiled("doubled", key, make, (-1, -1), threads=1, **options)

    build.made = 0
    return build


def test_a_function_is_converted_once_and_kept(compiled):
    for length in (2, 3):
        assert compiled()(np.ones((2, length), np.float32))[0].tolist() == [[2.0] * length] * 2
    assert compiled.made == 1


def test_texts_have_the_same_bits_in_the_process_that_converts_the_tower(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, later = (frozen_text(TEXT, threads=1).encode("red bag", 16) for _ in range(2))
    assert torch.equal(first, later)


def test_another_edition_takes_the_place_of_the_one_before(compiled, tmp_path):
    for key in ("a", "b", "b"):
        compiled(key)(np.ones((1, 2), np.float32))
    assert compiled.made == 2
    assert [path.name for path in (tmp_path / "cope-live/compiled").iterdir()] == ["doubled-b"]


def test_a_damaged_file_is_made_anew(compiled, tmp_path):
    compiled()(np.ones((1, 2), np.float32))
    (tmp_path / "cope-live/compiled/doubled-a/model.xml").write_text("<net")
    assert compiled()(np.ones((1, 2), np.float32))[0].tolist() == [[2.0, 2.0]]
    assert compiled.made == 2


def test_without_a_folder_to_keep_it_in_a_function_is_made_each_time(compiled, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    for _ in range(2):
        assert compiled()(np.ones((1, 2), np.float32))[0].tolist() == [[2.0, 2.0]]
    assert compiled.made == 2
