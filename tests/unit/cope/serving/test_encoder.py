from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cope import export
from cope.errors import UserError
from cope.runtime.device import native_bfloat16
from cope.serving import artefact
from cope.serving.encoder import Encoder, FrameFeatures, PageInput, WindowInput
from cope.serving.identity import load_identity
from cope.serving.looking import as_tensor

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]


@pytest.fixture
def encoder(folder):
    return Encoder(folder, device="cpu")


def length(vectors):
    return np.linalg.norm(np.asarray(vectors, np.float64), axis=-1)


def test_frames_of_any_size_give_regions(encoder, pictures):
    for frame in encoder.encode_frames(pictures):
        k = len(frame.regions)
        assert 1 <= k <= 4
        assert frame.regions.shape == (k, 12)
        assert frame.regions.dtype == np.float16
        assert frame.boxes.shape == (k, 4)
        assert np.all((frame.boxes >= 0) & (frame.boxes <= 1))
        assert np.all(np.diff(frame.salience) <= 0)
        assert length(frame.regions) == pytest.approx(np.ones(k), abs=2e-3)


def test_a_frame_does_not_depend_on_its_batch(encoder, pictures):
    together = encoder.encode_frames(pictures)
    for picture, frame in zip(pictures, together, strict=True):
        alone = encoder.encode_frames([picture])[0]
        assert np.array_equal(alone.regions, frame.regions)
        assert np.array_equal(alone.salience, frame.salience)


def test_a_page_has_four_vectors_for_each_picture(encoder, pictures):
    page = encoder.encode_pages([PageInput("Red shoe", pictures, "Acme")])[0]
    assert page.vectors.shape == (12, 12)
    assert length(page.fused) == pytest.approx(1.0, abs=2e-3)


def test_pages_may_lack_pictures_or_words_or_both(encoder, pictures):
    words, seen, nothing, hollow = encoder.encode_pages(
        [
            PageInput("Red shoe", []),
            PageInput("", pictures[:1]),
            PageInput(" ", []),
            PageInput("", [np.zeros((0, 4, 3), np.uint8)]),
        ]
    )
    assert words.vectors.shape == (0, 12)
    assert length(words.fused) == pytest.approx(1.0, abs=2e-3)
    assert length(seen.fused) == pytest.approx(1.0, abs=2e-3)
    assert not nothing.fused.any()
    assert not hollow.fused.any()


def test_speech_is_compared_with_what_pages_say(encoder):
    said, silence = encoder.encode_speech(["Red shoe. Acme", " "])
    (page,) = encoder.encode_pages([PageInput("Red shoe", [], "Acme")])
    np.testing.assert_array_equal(said, page.text)
    assert length(said) == pytest.approx(1.0, abs=2e-3)
    assert silence.shape == (0,)


def test_windows_may_lack_frames_or_keywords_or_both(encoder, pictures):
    frames = encoder.encode_frames(pictures)
    empty = FrameFeatures(np.zeros((0, 12), np.float16), np.zeros(0, np.float32), np.zeros((0, 4), np.float32))
    found = encoder.encode_windows(
        [
            WindowInput(frames, [("red shoe", 1.0)]),
            WindowInput(frames, []),
            WindowInput([], [("red shoe", 1.0)]),
            WindowInput([], []),
            WindowInput([empty], [("", 1.0), ("shoe", 0.0)]),
        ]
    )
    assert found.dtype == np.float16
    assert length(found) == pytest.approx(np.array([1, 1, 1, 0, 0]), abs=2e-3)


def test_a_window_does_not_depend_on_its_batch(encoder, pictures):
    frames = encoder.encode_frames(pictures)
    windows = [WindowInput(frames[:2], [("red", 0.5), ("shoe", 1.0)]), WindowInput(frames, [])]
    together = encoder.encode_windows(windows)
    for window, row in zip(windows, together, strict=True):
        assert np.array_equal(encoder.encode_windows([window])[0], row)


def test_words_move_a_window_towards_the_page_they_name(tiny, folder, pictures):
    encoder = Encoder(folder, device="cpu")
    frames = encoder.encode_frames(pictures)
    named, other = encoder.encode_pages([PageInput("red shoe", []), PageInput("blue bottle", [])])
    silent, spoken = encoder.encode_windows([WindowInput(frames, []), WindowInput(frames, [("red shoe", 1.0)])])

    def lead(window):
        return float(window.astype(np.float32) @ (named.fused.astype(np.float32) - other.fused.astype(np.float32)))

    assert lead(spoken) > lead(silent)


@pytest.fixture
def trained(tiny, tmp_path):
    """trained(...) is the tiny model's folder, as of a training that heard and saw so."""

    def make(**heard):
        artefact.save(tmp_path / "m", "tiny", tiny.config, tiny.model.state_dict(), None, **heard)
        return tmp_path / "m"

    return make


@pytest.mark.parametrize("heard", [{"live_text": "none"}, {"modalities": "vision"}])
def test_windows_of_a_model_that_was_trained_without_speech_leave_it_out(trained, pictures, heard):
    encoder = Encoder(trained(**heard), device="cpu")
    frames = encoder.encode_frames(pictures)
    silent, spoken, unseen = encoder.encode_windows(
        [WindowInput(frames, []), WindowInput(frames, [("red shoe", 1.0)]), WindowInput([], [("red shoe", 1.0)])]
    )
    assert np.array_equal(silent, spoken)
    assert silent.any()
    assert not unseen.any()


def test_a_model_of_pictures_alone_reads_no_page(trained, pictures):
    encoder = Encoder(trained(modalities="vision"), device="cpu")
    named, nameless, words = encoder.encode_pages(
        [PageInput("red shoe", pictures), PageInput("", pictures), PageInput("red shoe", [])]
    )
    assert np.array_equal(named.fused, nameless.fused)
    assert not words.fused.any()


def test_a_model_without_speech_reads_pages_all_the_same(trained):
    encoder = Encoder(trained(live_text="none"), device="cpu")
    assert encoder.encode_pages([PageInput("red shoe", [])])[0].fused.any()


def test_a_model_of_words_alone_sees_nothing(trained, pictures):
    encoder = Encoder(trained(modalities="text"), device="cpu")
    frames = encoder.encode_frames(pictures)
    seen, unseen, silent = encoder.encode_windows(
        [WindowInput(frames, [("red shoe", 1.0)]), WindowInput([], [("red shoe", 1.0)]), WindowInput(frames, [])]
    )
    assert np.array_equal(seen, unseen)
    assert not silent.any()
    shown, plain = encoder.encode_pages([PageInput("red shoe", pictures), PageInput("red shoe", [])])
    assert shown.vectors.shape == (0, 12)
    assert np.array_equal(shown.fused, plain.fused)


@pytest.mark.parametrize("heard", [{"live_text": "none"}, {"modalities": "vision"}, {"modalities": "text"}])
def test_models_of_less_than_everything_pass_the_check_for_workers(trained, heard):
    assert list(export.verify(trained(**heard)))[-1].startswith("text")


def test_what_stays_outweighs_what_is_seen_once(tiny):
    model = tiny.model.eval()
    with torch.no_grad():
        model.attention.copy_(torch.tensor([0.0, 6.0]))
        regions = torch.eye(12)[[0, 1, 0, 2, 0, 3]].unsqueeze(0)  # thing 0 in all three frames
        frame = torch.tensor([[0, 0, 1, 1, 2, 2]])
        pooled = model.pool(regions, torch.full((1, 6), 0.5), frame)[0]
    assert pooled[0] > 0.99


def test_padding_takes_no_attention(tiny):
    model = tiny.model.eval()
    regions = torch.nn.functional.normalize(torch.randn(1, 3, 12), dim=2)
    salience, frame = torch.rand(1, 3), torch.tensor([[0, 1, 1]])
    with torch.no_grad():
        plain = model.pool(regions, salience, frame)
        padded = model.pool(
            torch.cat([regions, torch.ones(1, 2, 12)], 1),
            torch.cat([salience, torch.ones(1, 2)], 1),
            torch.cat([frame, -torch.ones(1, 2, dtype=torch.long)], 1),
        )
    assert torch.allclose(plain, padded, atol=1e-6)


@pytest.mark.skipif(not native_bfloat16(torch.device("cpu")), reason="this processor has no bfloat16")
def test_frames_in_bfloat16_can_be_compared_with_pages_in_float32():
    full, native = (Encoder("cope-mini", "cpu", threads=1, native=how) for how in (False, True))
    assert native.version == full.version == load_identity("cope-mini").version
    paths = sorted(ROOT.glob("cope/render/backgrounds/*.jpg"))
    photos = [cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in paths]
    crops = as_tensor(
        [crop for photo in photos for crop in full.looker.crops(photo, full.looker.find(photo)[0])], full.device
    )
    assert len(crops) >= 40
    with torch.inference_mode():
        one, two = (encoder.live_vision.describe(crops) for encoder in (full, native))
        assert not torch.equal(one, two)
        one, two = (full.model.visual(descriptors, "live") for descriptors in (one, two))
    assert (one * two).sum(dim=1).min() > 0.98
    pages = [encoder.encode_pages([PageInput("Red bag", photos[:1])])[0] for encoder in (full, native)]
    for name in ("vectors", "fused", "text"):
        assert np.array_equal(getattr(pages[0], name), getattr(pages[1], name)), name


def test_without_bfloat16_frames_are_looked_at_in_float32(folder, pictures, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    one, two = (Encoder(folder, device="cpu", native=how).encode_frames(pictures) for how in (False, True))
    assert all(np.array_equal(first.regions, second.regions) for first, second in zip(one, two, strict=True))


def test_a_device_that_is_not_there(folder):
    with pytest.raises(UserError, match="device 'cuda:7' is not there"):
        Encoder(folder, device="cuda:7")
