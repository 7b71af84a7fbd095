"""Opens the vision or text half of a model by hub name or folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from safetensors import SafetensorError

from cope.errors import UserError
from cope.towers.hub.text import CausalText, ClassTokenText, FixedLengthText, HubText, HubTokenizer
from cope.towers.hub.vision import ClassTokenVision, CrossFrameVision, HubVision, PatchedVision

SEEING = ("clip", "chinese_clip", "siglip", "siglip2", "xclip", "vit", "clip_vision_model", "siglip_vision_model")
READING = ("clip", "chinese_clip", "siglip", "siglip2", "xclip", "bert", "roberta", "xlm-roberta")
POOLERS = ("vit", "bert", "roberta", "xlm-roberta")  # whose pooling layer is for classifying, and often untrained

_EYES: dict[str, type[HubVision]] = {"vit": ClassTokenVision, "siglip2": PatchedVision, "xclip": CrossFrameVision}
_READERS: dict[str, type[HubText]] = {
    "chinese_clip": ClassTokenText,
    "clip": CausalText,
    "xclip": CausalText,
    "siglip": FixedLengthText,
    "siglip2": FixedLengthText,
}
# What may go wrong in `transformers` and below it when a model is fetched or read.
_TROUBLE = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError, httpx.HTTPError)


def open_vision(name: str, weights: bool = True) -> HubVision:
    """Opens the vision half of a model.

    Args:
        name: Hub name or folder.
        weights: Whether to read its weights; else they are random, to be replaced.

    Raises:
        UserError: There is no such model, it is of a family that is not known, or its files are not whole.
    """
    family, whole, half = _open(name, "vision", SEEING, weights)
    try:
        from transformers.image_processing_base import ImageProcessingMixin

        settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
        mean, std = settings["image_mean"], settings["image_std"]
    except _TROUBLE as error:
        raise _unusable(name, "vision", error) from None
    return _EYES.get(family, HubVision)(half, whole, mean, std)


def open_text(name: str, weights: bool = True) -> HubText:
    """Opens the text half of a model; as `open_vision`."""
    family, whole, half = _open(name, "text", READING, weights)
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(name)
    except _TROUBLE as error:
        raise _unusable(name, "text", error) from None
    known, words = len(tokenizer), int(half.config.vocab_size)
    if not len(tokenizer.all_special_ids) < known <= words:  # files that are missing give an empty vocabulary
        raise UserError(
            f"the text tower {name!r} has a tokenizer of {known} tokens and a model of {words}; "
            f"give a folder with the model's own tokenizer files"
        )
    return _READERS.get(family, HubText)(half, whole, HubTokenizer(tokenizer))


def _open(name: str, kind: str, families: Sequence[str], weights: bool) -> tuple[str, Any, Any]:
    """A model's family, configuration and half."""
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise UserError(f"the {kind} tower {name!r} is no model: the folder has no config.json; give a model's folder")
    if name.startswith(("/", ".")) and not Path(name).is_dir():  # else taken for a malformed hub name
        raise UserError(f"the {kind} tower {name!r} is not there; give a model's folder or hub name")
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    loudness = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns that one half is not used; missing weights are checked below
    logging.disable_progress_bar()
    try:
        whole = AutoConfig.from_pretrained(name)
        family = str(whole.model_type)
        if family not in families:
            raise UserError(
                f"the {kind} tower {name!r} is of the family {family!r}, which has no use here; "
                f"choose a model of {', '.join(families)}"
            )
        extra = {"add_pooling_layer": False} if family in POOLERS else {}
        if weights:
            model, info = AutoModel.from_pretrained(name, config=whole, output_loading_info=True, **extra)
        else:
            model, info = AutoModel.from_config(whole, **extra), {"missing_keys": ()}
    except _TROUBLE as error:
        raise _unusable(name, kind, error) from None
    finally:
        logging.set_verbosity(loudness)
    half = getattr(model, f"{kind}_model", model)
    prefix = "" if half is model else f"{kind}_model."
    missing = next((key for key in sorted(info["missing_keys"]) if key.startswith(prefix)), None)
    if missing is not None:  # `transformers` would go on with random ones
        raise UserError(f"the {kind} tower {name!r} lacks weights ({missing}); give a whole model")
    return family, whole, half.float()


def _unusable(name: str, kind: str, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UserError(f"cannot load the {kind} tower {name!r}: {reason}; give a folder or a hub name that exists")
