import numpy as np
import pytest
import torch

from cope.encoder import Encoder, FrameFeatures, PageInput, WindowInput
from cope.errors import UserError


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


def test_a_page_has_a_vector_for_each_picture(encoder, pictures):
    page = encoder.encode_pages([PageInput("Red shoe", pictures, "Acme")])[0]
    assert page.vectors.shape == (3, 12)
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


def test_keywords_turn_attention_to_what_looks_like_them(tiny):
    model = tiny.model.eval()
    with torch.no_grad():
        model.looks_like.weight.copy_(torch.eye(12))
        model.attention.copy_(torch.tensor([1.0, 0.0, 8.0]))
    regions = torch.eye(12)[:2].unsqueeze(0)
    arguments = (regions, torch.tensor([[0.5, 0.5]]), torch.zeros(1, 2, dtype=torch.long), torch.eye(12)[1:2])
    with torch.no_grad():
        deaf = model.pool(*arguments, torch.tensor([0.0]))[0]
        guided = model.pool(*arguments, torch.tensor([1.0]))[0]
    assert deaf[0] == pytest.approx(float(deaf[1]))
    assert guided[1] > 10 * guided[0]


def test_what_stays_outweighs_what_is_seen_once(tiny):
    model = tiny.model.eval()
    with torch.no_grad():
        model.attention.copy_(torch.tensor([0.0, 6.0, 0.0]))
        regions = torch.eye(12)[[0, 1, 0, 2, 0, 3]].unsqueeze(0)  # thing 0 in all three frames
        frame = torch.tensor([[0, 0, 1, 1, 2, 2]])
        pooled = model.pool(regions, torch.full((1, 6), 0.5), frame, torch.zeros(1, 12), torch.tensor([0.0]))[0]
    assert pooled[0] > 0.99


def test_padding_takes_no_attention(tiny):
    model = tiny.model.eval()
    regions = torch.nn.functional.normalize(torch.randn(1, 3, 12), dim=2)
    salience, frame = torch.rand(1, 3), torch.tensor([[0, 1, 1]])
    rest = (torch.zeros(1, 12), torch.tensor([0.0]))
    with torch.no_grad():
        plain = model.pool(regions, salience, frame, *rest)
        padded = model.pool(
            torch.cat([regions, torch.ones(1, 2, 12)], 1),
            torch.cat([salience, torch.ones(1, 2)], 1),
            torch.cat([frame, -torch.ones(1, 2, dtype=torch.long)], 1),
            *rest,
        )
    assert torch.allclose(plain, padded, atol=1e-6)


def test_a_device_that_is_not_there(folder):
    with pytest.raises(UserError, match="device 'cuda:7' is not there"):
        Encoder(folder, device="cuda:7")
