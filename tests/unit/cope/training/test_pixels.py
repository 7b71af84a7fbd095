"""From pixels and tokens to views: regions on the device, towers with and without gradients, rates by layer."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from cope.config import ModelConfig, TrainConfig, preset
from cope.data.loader import Batch, ItemBatch
from cope.errors import UserError
from cope.model.views import NOBODY
from cope.train import configuration, main
from cope.training.pixels import PixelObjective
from cope.vision import cropping, pictures, regions

pytestmark = pytest.mark.slow

B, T, SIDE = 4, 3, 32


def items(regions: bool, frames: int = T, seed: int = 0) -> ItemBatch:
    """Random pictures; the second frame of the first item is missing, and the last item altogether."""
    generator = torch.Generator().manual_seed(seed)
    side = 224 if regions else SIDE
    there = torch.ones(B, frames, dtype=torch.bool)
    there[0, 1:2] = False
    there[-1] = False
    content = torch.tensor([0.0, 0.0, 1.0, 4 / 7 if regions else 1.0]).expand(B, frames, 4)
    tokens = torch.randint(5, 30, (B, 6), generator=generator)
    mask = torch.arange(6) < torch.tensor([[6], [3], [1], [0]])
    return ItemBatch(
        pixels=torch.randint(0, 256, (B, frames, 3, side, side), generator=generator, dtype=torch.uint8),
        content=content,
        boxes=torch.zeros(B, frames, 4),
        frame_there=there,
        tokens=tokens * mask,
        mask=mask,
        told=mask.any(dim=1).float(),
        product=torch.tensor([0, 1, 2, NOBODY]),
    )


def batch(regions: bool) -> Batch:
    return Batch(items(False, 1, 1), items(regions, seed=2), items(regions, seed=3), torch.ones(B))


def config(hub: dict[str, Path], family: str = "x_clip", text: str = "bert", **changes: Any) -> TrainConfig:
    base = preset("cope-paper")
    model = replace(base.model, vision=str(hub[family]), text=str(hub[text]), dim=8, crop_pixels=SIDE)
    model = replace(model, **{k.removeprefix("model_"): v for k, v in changes.items() if k.startswith("model_")})
    rest = {k: v for k, v in changes.items() if not k.startswith("model_")}
    return replace(base, model=model, batch_products=B, clip_frames=T, classes_sampled=4, precision="float32", **rest)


def gradients(module: PixelObjective, regions: bool = False) -> dict[str, Tensor]:
    torch.manual_seed(0)
    torch.stack(list(module(batch(regions)).values())).sum().backward()
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield


def test_regions_are_those_that_service_chooses() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.7, (5, 200, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.05, 0.5, (5, 200, 2))], axis=2).astype(np.float32)
    salience = rng.choice(np.linspace(0, 1, 50), (5, 200)).astype(np.float32)  # some are equal
    found, how = cropping.best_regions(torch.from_numpy(boxes), torch.from_numpy(salience), 6, 0.3)
    for i in range(5):
        expected, sure = regions.best_regions(boxes[i], salience[i], 6, 0.3)
        there = how[i] >= 0
        np.testing.assert_array_equal(found[i][there].numpy(), expected)
        np.testing.assert_array_equal(how[i][there].numpy(), sure)


def test_a_frame_with_fewer_regions_says_so() -> None:
    box = torch.tensor([[[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.51]]])
    _, how = cropping.best_regions(box, torch.tensor([[0.4, 0.9]]), 3, 0.5)
    assert how.tolist() == [[pytest.approx(0.9), -1.0, -1.0]]


@pytest.mark.parametrize(
    "box", [[0.3, 0.2, 0.6, 0.7], [0.0, 0.0, 1.0, 1.0], [0.85, 0.9, 1.0, 1.0], [0.4, 0.4, 0.45, 0.42]]
)
def test_crops_are_framed_as_in_service(box: list[float]) -> None:
    rng = np.random.default_rng(1)
    image = cv2.resize(rng.integers(0, 256, (18, 32, 3), np.uint8), (256, 144), interpolation=cv2.INTER_CUBIC)
    canvas = np.full((256, 256, 3), 127, np.uint8)
    canvas[:144] = image  # as the loader lays it
    content = torch.tensor([[0.0, 0.0, 1.0, 144 / 256]])
    on_canvas = torch.tensor([[[box[0], box[1] * 144 / 256, box[2], box[3] * 144 / 256]]])
    frames = torch.from_numpy(canvas).permute(2, 0, 1)[None]
    mine = cropping.square_crops(frames, on_canvas, content, 64, 0.1)[0, 0].permute(1, 2, 0).numpy()
    service = pictures.square_crop(np.asarray(image, np.uint8), np.array(box), 64, 0.1).astype(np.float32)
    # Service cuts at whole pixels: of a small box that is a large part.
    assert np.abs(mine - service).mean() < 8


def test_whole_frames_are_one_region_each_and_missing_ones_are_left_out(hub: dict[str, Path]) -> None:
    module = PixelObjective(config(hub), 3).eval()
    views = module.views({"page": items(False, 1), "live": items(False)})
    assert views["live"].descriptors.shape == (B, T, 32)
    assert views["live"].frame.tolist() == [[0, -1, 2], [0, 1, 2], [0, 1, 2], [-1, -1, -1]]
    assert not views["live"].right.any()
    assert views["page"].right.tolist() == [[True], [True], [True], [False]]
    assert views["live"].words.shape == (B, 32)


def test_frames_of_a_clip_see_one_another_only_in_their_clip(hub: dict[str, Path]) -> None:
    module = PixelObjective(config(hub), 3).eval()
    clips = items(False)
    other = replace(clips, pixels=clips.pixels.clone())
    other.pixels[1, 2] = 0
    change = module.views({"live": clips})["live"].descriptors - module.views({"live": other})["live"].descriptors
    moved = change.abs().amax(dim=2) > 1e-5
    assert moved[1].all()  # all frames of the clip hear of the change
    assert not moved[[0, 2]].any()


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_frames_that_are_missing_tell_the_others_nothing(
    hub: dict[str, Path], precision: Literal["float32", "auto"]
) -> None:
    module = PixelObjective(replace(config(hub), precision=precision), 3).eval()
    clips = items(False, frames=4)
    clips.frame_there[1, 2:] = False  # a short clip; of clip 0 a frame within is missing
    other = replace(clips, pixels=torch.where(clips.frame_there[..., None, None, None], clips.pixels, 0))
    found, blackened = (module.views({"live": one})["live"].descriptors for one in (clips, other))
    assert torch.isfinite(found).all()
    for clip, there in enumerate(clips.frame_there[:-1]):
        assert torch.equal(found[clip, there], blackened[clip, there])
        if precision == "float32":  # as in service, which has only frames that are there
            with torch.no_grad():
                alone = module.towers[0].describe(clips.pixels[clip, there].float(), int(there.sum()))
            torch.testing.assert_close(found[clip, there], alone, rtol=1e-4, atol=1e-5)


@pytest.fixture
def with_regions(hub: dict[str, Path], tiny: Any, folder: Path) -> TrainConfig:
    return config(
        hub,
        "siglip",
        finder_from=str(folder),
        clip_regions=2,
        live_text="keywords",
        model_finder="packaged:tiny-vision",
        model_hidden=8,
        model_regions=4,
        model_frame_pixels=tiny.config.frame_pixels,
        model_temporal="attention",
    )


def test_regions_lie_within_the_picture_and_those_on_the_product_are_right(with_regions: TrainConfig) -> None:
    module = PixelObjective(with_regions, 3).eval()
    clips = items(True)
    boxes, sure = module._found(clips.pixels.flatten(0, 1), clips.content.flatten(0, 1))
    assert (sure >= 0).all()
    assert float(boxes[..., 3].max()) <= 4 / 7 + 1e-6
    truth = clips.boxes.clone()
    truth[1, 2] = boxes.view(B, T, 2, 4)[1, 2, 1]
    views = module.views({"live": replace(clips, boxes=truth)})["live"]
    assert views.descriptors.shape == (B, T * 2, 32)
    assert views.right.nonzero().tolist() == [[1, 5]]
    assert views.frame[0].tolist() == [0, 0, -1, -1, 2, 2]
    assert torch.isfinite(torch.stack(list(module.train()(batch(True)).values()))).all()


def test_a_region_finder_must_come_from_somewhere(with_regions: TrainConfig) -> None:
    with pytest.raises(UserError, match="regions=4 needs a region finder: set finder_from"):
        PixelObjective(replace(with_regions, finder_from=""), 3)
    wider = replace(with_regions, model=replace(with_regions.model, hidden=16))
    with pytest.raises(UserError, match=r"hidden=8\), not .* \(hidden=16\)"):
        PixelObjective(wider, 3)


@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_towers_learn_as_tuning_says(hub: dict[str, Path], tuning: str) -> None:
    module = PixelObjective(config(hub, model_tuning=tuning, live_text="raw", words=1.0), 3).train()
    learned = [name for name in gradients(module) if name.startswith(("vision.", "text."))]
    assert {"frozen": not learned, "lora": all("lora" in n for n in learned), "full": True}[tuning]
    assert bool(learned) == (tuning != "frozen")
    grouped = {id(p) for group in module.groups() for p in group.parameters}
    assert all(id(p) in grouped for p in module.parameters() if p.grad is not None)
    assert len(grouped) == sum(len(group.parameters) for group in module.groups())


@pytest.mark.parametrize(("family", "text"), [("x_clip", "bert"), ("siglip", "siglip")])
def test_gradient_checkpointing_changes_no_gradient(hub: dict[str, Path], family: str, text: str) -> None:
    found = []
    for on in (False, True):
        torch.manual_seed(1)
        made = config(hub, family, text, gradient_checkpointing=on, classification=0.0)
        found.append(gradients(PixelObjective(made, 3).train()))
    plain, recomputed = found
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(gradient, recomputed[name], rtol=1e-3, atol=1e-5, msg=name)


def test_each_layer_below_learns_more_slowly(hub: dict[str, Path]) -> None:
    module = PixelObjective(config(hub, layer_decay=0.5, vision_rate=1e-3), 3)
    see, _ = module.towers
    rate = {id(p): group.rate for group in module.groups() for p in group.parameters}
    below, first, second, above = ({rate[id(p)] for p in layer} for layer in see.layers())
    assert (below, first, second, above) == ({0.25e-3}, {0.5e-3}, {1e-3}, {1e-3})
    decays = {(p.dim() > 1, g.weight_decay > 0) for g in module.groups() if g.name == "vision" for p in g.parameters}
    assert decays == {(True, True), (False, False)}


def test_masked_language_is_a_loss_of_its_own_and_drawn_from_the_step(hub: dict[str, Path]) -> None:
    module = PixelObjective(config(hub, masked_language=0.5), 3).train()
    torch.manual_seed(3)
    first = module(batch(False))["masked language"]
    torch.manual_seed(3)
    again = module(batch(False))["masked language"]
    assert torch.equal(first, again)
    assert float(first.detach()) > 0
    with pytest.raises(UserError, match="no mask token; set masked_language=0"):
        PixelObjective(config(hub, text="clip", masked_language=0.5), 3)


def test_settings_override_a_file_which_overrides_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("steps = 50\nbatch_products = 8\n[model]\ndim = 64\ncrop_pixels = 96\n")
    found = configuration("cope-paper", file, ["steps=70", "model.dim=128", "live_text=raw", "learn_temperature=true"])
    assert (found.steps, found.batch_products) == (70, 8)
    assert (found.model.dim, found.model.crop_pixels, found.model.temporal) == (128, 96, "transformer")
    assert (found.live_text, found.learn_temperature) == ("raw", True)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("steps", "give FIELD=VALUE"),
        ("stepz=3", "unknown field 'stepz'"),
        ("steps=many", "steps must be int, not 'many'"),
        ("model=small", "must be a table of fields"),
        ("model.dim=0.5", "dim must be int"),
    ],
)
def test_a_wrong_setting_is_one_line(setting: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        configuration("cope-mini", None, [setting])


def test_the_command_ends_with_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert main(["--data", str(tmp_path / "nowhere"), *out]) == 2
    assert main(["--data", str(tmp_path), *out, "--device", "cuda:77"]) == 2
    assert main(["--data", str(tmp_path), *out, "--preset", "cope-huge"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    for line, told in zip(lines, ("nowhere", "'cuda:77' is not there", "'cope-huge' is not one of"), strict=True):
        assert line.startswith("cope.train: ")
        assert told in line


def test_small_towers_of_the_base_preset_share_a_space(hub: dict[str, Path]) -> None:
    both = str(hub["siglip"])
    made = replace(preset("cope-base"), model=ModelConfig(vision=both, text=both, dim=8, regions=0, crop_pixels=SIDE))
    module = PixelObjective(replace(made, clip_frames=T), 3)
    assert all(torch.isfinite(loss) for loss in module(batch(False)).values())
