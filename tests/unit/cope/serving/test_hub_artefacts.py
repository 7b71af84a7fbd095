"""Artefacts of hub towers, frozen and tuned, and what the encoder makes of them."""

import json
import shutil

import numpy as np
import pytest
import torch

from cope.config import ModelConfig
from cope.errors import UserError
from cope.model.modeling import CopeModel
from cope.model.scoring import UNCALIBRATED
from cope.serving import artefact
from cope.serving.encoder import Encoder, PageInput, WindowInput
from cope.serving.identity import content_hash
from cope.towers.packaged import text_tower, vision_tower
from tests.unit.cope.towers.test_tuning import stirred
from tests.unit.cope.towers.tiny_hub import SIDE

pytestmark = pytest.mark.slow

DIM = 12


@pytest.fixture
def made(hub, tmp_path):
    """make(...) writes an artefact of hub towers, everything that is tuned moved, and returns folder and towers."""

    def make(tuning="frozen", vision="clip", text="bert", source=None, precision="float32", **changes):
        names = {"vision": str((source or hub)[vision]), "text": str((source or hub)[text])}
        config = ModelConfig(
            **names, dim=DIM, crop_pixels=SIDE, text_tokens=16, tuning=tuning, lora_rank=4, **{"regions": 0} | changes
        )
        see, read = vision_tower(names["vision"], tuning, 4), text_tower(names["text"], tuning, 4)
        torch.manual_seed(0)
        model = CopeModel(config, (), see.descriptor_width, read.width)
        folder = tmp_path / f"{tuning}-{vision}-{precision}"
        towers = (stirred(see), stirred(read))
        artefact.save(folder, "tiny", config, model.state_dict(), UNCALIBRATED, precision, towers)
        return folder, towers

    return make


def encoded(encoder, pictures):
    frames = encoder.encode_frames(pictures)
    pages = encoder.encode_pages([PageInput("red bag", pictures[:2]), PageInput("blue cup", [])])
    windows = encoder.encode_windows(
        [
            WindowInput(frames, [("red bag", 1.0), ("cup", 0.5)]),
            WindowInput(frames[:2], []),
            WindowInput([], [("x", 1.0)]),
        ]
    )
    return frames, pages, windows


def flat(results):
    frames, pages, windows = results
    return np.concatenate([f.regions for f in frames] + [p.fused[None] for p in pages] + [windows]).astype(np.float32)


@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_an_artefact_holds_what_was_learned_and_no_more(made, tuning):
    folder, towers = made(tuning)
    loaded = artefact.verify(folder)
    for kind, tower in zip(artefact.KINDS, towers, strict=True):
        assert set(loaded.tower(kind)) == set(tower.tuned_state())
    assert bool(loaded.tower("vision")) == (tuning != "frozen")
    assert (folder / "text").is_dir() == (tuning == "full")


@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_the_encoder_sees_and_reads_as_the_towers_that_were_saved(made, pictures, tuning):
    folder, (see, read) = made(tuning)
    encoder = Encoder(folder, device="cpu")
    model = artefact.load(folder).model()
    pixels = torch.full((1, 3, SIDE, SIDE), 200.0)
    with torch.no_grad():
        picture = model.visual(see.describe(pixels), "live")[0].numpy()
        words = model.text(read.encode("red bag", 16)[None])[0]
        said = torch.nn.functional.normalize(
            torch.nn.functional.normalize(model.no_picture, dim=-1) + model.text_share["live"] * words, dim=-1
        )
    frame = encoder.encode_frames([np.full((50, 50, 3), 200, np.uint8)])[0]
    window = encoder.encode_windows([WindowInput([], [("red bag", 1.0)])])[0]
    assert frame.regions[0] == pytest.approx(picture, abs=5e-3)
    assert window == pytest.approx(said.numpy(), abs=5e-3)


def test_a_model_tuned_in_full_needs_no_other_folder(made, hub, tmp_path, pictures):
    moved = {name: shutil.copytree(hub[name], tmp_path / "hub" / name) for name in ("siglip",)}
    folder, _ = made("full", "siglip", "siglip", source=moved)
    before = flat(encoded(Encoder(folder, device="cpu"), pictures))
    shutil.rmtree(tmp_path / "hub")
    after = flat(encoded(Encoder(shutil.copytree(folder, tmp_path / "elsewhere"), device="cpu"), pictures))
    assert np.array_equal(before, after)


def test_a_frozen_tower_that_is_gone_is_named(made, hub, tmp_path):
    moved = {name: shutil.copytree(hub[name], tmp_path / "hub" / name) for name in ("clip", "bert")}
    folder, _ = made("lora", source=moved)
    shutil.rmtree(moved["clip"])
    with pytest.raises(UserError, match=r"other weights of the vision tower .*, or they are not there"):
        Encoder(folder, device="cpu")


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
@pytest.mark.parametrize("file", ["bert/tokenizer.json", "clip/preprocessor_config.json"])
def test_a_tower_that_reads_or_sees_otherwise_is_another_one(made, hub, tmp_path, tuning, file):
    moved = {name: shutil.copytree(hub[name], tmp_path / "hub" / name) for name in ("clip", "bert")}
    folder, _ = made(tuning, source=moved)
    artefact.load(folder)
    path = tmp_path / "hub" / file
    path.write_text(path.read_text().replace("0.48", "0.5").replace('"a"', '"A"', 1))
    with pytest.raises(UserError, match=r"made on other weights of the (vision|text) tower .* tokenizer or processor"):
        artefact.load(folder)


@pytest.mark.parametrize("file", ["text/special_tokens_map.json", "vision/processor_config.json"])
def test_files_that_are_not_the_models_own_are_refused(made, file):
    folder, _ = made("full")
    artefact.load(folder)
    (folder / file).write_text("{}")
    with pytest.raises(UserError, match=rf"{file} is no part of the model; remove it"):
        artefact.load(folder)


def test_a_missing_tokenizer_is_named(made):
    folder, _ = made("full")
    (folder / "text" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no text/tokenizer\.json; copy the whole folder"):
        artefact.load(folder)


def test_a_changed_tokenizer_is_damage(made):
    folder, _ = made("full")
    path = folder / "text" / "tokenizer.json"
    path.write_text(path.read_text().replace('"a"', '"A"', 1))
    with pytest.raises(UserError, match="damaged"):
        artefact.load(folder)


def test_calibration_and_precision_change_without_touching_weights(made):
    folder, _ = made("lora")
    before = artefact.load(folder)
    digest = artefact.update(folder, precision="bfloat16")
    after = artefact.load(folder)
    assert after.digest == digest != before.digest
    assert (after.precision, after.calibration) == ("bfloat16", before.calibration)
    assert all(torch.equal(after.weights[name], weight) for name, weight in before.weights.items())


def test_an_artefact_saved_again_keeps_its_towers(made):
    folder, _ = made("full")
    first = artefact.load(folder)
    artefact.save(folder, first.name, first.config, first.weights, first.calibration)
    assert artefact.verify(folder).digest == first.digest


def test_an_unknown_precision_is_refused(made):
    folder, _ = made()
    content = json.loads((folder / "config.json").read_text()) | {"precision": "int4"}
    content["sha256"] = content_hash(folder, content)
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="precision must be one of float32, bfloat16, int8"):
        artefact.load(folder)


def test_tuned_towers_that_were_left_out_are_noticed(made):
    folder, _ = made("lora")
    loaded = artefact.load(folder)
    heads = {name: weight for name, weight in loaded.weights.items() if not name.startswith("towers.")}
    artefact.save(folder, "tiny", loaded.config, heads, UNCALIBRATED)
    with pytest.raises(UserError, match="lacks its tuned vision tower"):
        artefact.verify(folder)
    with pytest.raises(UserError, match="of another tower or rank"):
        Encoder(folder, device="cpu")


def test_weights_that_are_no_numbers_are_noticed(tiny, tmp_path):
    state = tiny.model.state_dict()
    state["no_text"][0] = float("nan")
    artefact.save(tmp_path / "broken", "tiny", tiny.config, state, UNCALIBRATED)
    with pytest.raises(UserError, match=r"no numbers \(no_text\)"):
        artefact.verify(tmp_path / "broken")


def test_weights_of_another_configuration_are_noticed(tiny, tmp_path):
    state = tiny.model.state_dict()
    state.pop("no_text")
    artefact.save(tmp_path / "broken", "tiny", tiny.config, state, UNCALIBRATED)
    with pytest.raises(UserError, match="do not fit its configuration"):
        artefact.verify(tmp_path / "broken")


def test_a_folder_that_cannot_be_written_is_one_line(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the model to"):
        artefact.save(tmp_path / "file" / "model", "tiny", tiny.config, tiny.model.state_dict(), UNCALIBRATED)


def test_values_beyond_float16_stay_what_they_are(tiny, tmp_path):
    state = tiny.model.state_dict()
    state["visual.axes.bias"][0] = 1e6
    artefact.save(tmp_path / "large", "tiny", tiny.config, state, UNCALIBRATED)
    assert artefact.load(tmp_path / "large").weights["visual.axes.bias"][0] == 1e6


@pytest.mark.parametrize("family", ["clip", "x_clip"])
def test_whole_frames_are_the_one_region(made, pictures, family):
    folder, _ = made(vision=family)
    for frame in Encoder(folder, device="cpu").encode_frames(pictures):
        assert frame.regions.shape == (1, DIM)
        assert frame.salience.tolist() == [1.0]
        assert frame.boxes.tolist() == [[0.0, 0.0, 1.0, 1.0]]
        assert (frame.picture is not None) == (family == "x_clip")


@pytest.mark.parametrize("temporal", ["attention", "transformer"])
@pytest.mark.parametrize("family", ["siglip2", "x_clip"])
def test_nothing_depends_on_what_it_is_encoded_with(made, pictures, family, temporal):
    folder, _ = made(vision=family, text="bert", temporal=temporal, fusion="transformer")
    encoder = Encoder(folder, device="cpu")
    frames, _, windows = encoded(encoder, pictures)
    for picture, frame in zip(pictures, frames, strict=True):
        assert np.array_equal(encoder.encode_frames([picture])[0].regions, frame.regions)
    alone = encoder.encode_windows([WindowInput(frames[:2], [])])[0]
    assert np.array_equal(alone, windows[1])


def test_the_frames_of_an_x_clip_window_see_one_another(made, pictures):
    folder, (see, _) = made(vision="x_clip")
    encoder = Encoder(folder, device="cpu")
    frames = encoder.encode_frames(pictures)
    pixels = torch.from_numpy(np.stack([f.picture for f in frames])).permute(0, 3, 1, 2).float()
    model = artefact.load(folder).model()
    yes, no = torch.tensor([True]), torch.tensor([0.0])
    with torch.no_grad():
        regions = model.visual(see.describe(pixels, frames=3), "live")[None]
        none = torch.zeros(1, DIM)
        pooled = model.pool(regions, torch.ones(1, 3), torch.arange(3)[None])
        wanted = model.fuse(pooled, yes, none, no, "live")[0]
    assert encoder.encode_windows([WindowInput(frames, [])])[0] == pytest.approx(wanted.numpy(), abs=5e-3)


def test_regions_may_be_found_by_another_tower_than_describes_them(hub, made, tmp_path, pictures):
    names = {"vision": str(hub["siglip"]), "text": str(hub["siglip"]), "finder": str(hub["vit"])}
    sizes = {"dim": DIM, "hidden": 8, "regions": 3, "crop_pixels": SIDE, "text_tokens": 16}
    config = ModelConfig(**names, **sizes, frame_pixels=128 * 224)
    finder = vision_tower(names["finder"])
    model = CopeModel(config, finder.map_channels, 32, 32)
    artefact.save(tmp_path / "two", "two", config, model.state_dict(), UNCALIBRATED)
    frames = Encoder(tmp_path / "two", device="cpu").encode_frames(pictures)
    assert all(1 <= len(frame.regions) <= 3 for frame in frames)
    assert set(json.loads((tmp_path / "two" / "config.json").read_text())["towers"]) == {"vision", "text", "finder"}


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_lower_precision_is_close_and_another_version(made, pictures, precision):
    plain, _ = made(vision="siglip", text="siglip")
    low, _ = made(vision="siglip", text="siglip", precision=precision)
    one, two = Encoder(plain, device="cpu"), Encoder(low, device="cpu")
    exact, rough = flat(encoded(one, pictures)), flat(encoded(two, pictures))
    assert one.version != two.version
    assert not np.array_equal(exact, rough)
    assert np.all((exact * rough).sum(axis=1) > 0.98)
    again = flat(encoded(two, pictures))
    assert np.array_equal(rough, again)
