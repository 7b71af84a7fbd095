"""The stage that learns from pixels and tokens: towers, region finder, model and losses in one module.

`cope-mini` keeps what its frozen towers see and never comes here (`cope.training.frozen`); every other preset
and data set does.
Letters in the shapes: B items, T frames, K regions of a frame, S the side of a crop, C that of a frame's canvas.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cope.config import TrainConfig
from cope.data.items import Source
from cope.data.loader import Batch, ItemBatch, batches
from cope.domains import Domain
from cope.errors import UserError
from cope.model.modeling import CopeModel
from cope.model.views import Views
from cope.runtime.device import autocast
from cope.runtime.distributed import rank, world
from cope.towers.hub.vision import CrossFrameVision
from cope.towers.interface import Tunable
from cope.towers.packaged import TextTower, VisionTower, finder_tower, text_tower, vision_tower
from cope.training.finder import take_finder
from cope.training.masked_language import MaskedTower, masked_language_loss
from cope.training.objective import Objective
from cope.training.trainer import Group, Stage
from cope.vision.cropping import best_regions, pair_iou, square_crops

RIGHT_IOU = 0.5  # from here on a region shows what is in a true box, as object detection counts it


class PixelObjective(nn.Module):
    """Batches of pictures and tokens -> losses. The towers are part of it and learn as `tuning` says."""

    def __init__(self, config: TrainConfig, classes: int) -> None:
        """Opens the towers and builds the model on them.

        Args:
            config: Configuration of the training run.
            classes: Products of the training data.

        Raises:
            UserError: A tower is not there or cannot be tuned so, or there is no region finder to start from.
        """
        super().__init__()
        m = config.model
        self.config = config
        self.vision = vision_tower(m.vision, m.tuning, m.lora_rank)
        self.text = text_tower(m.text, m.tuning, m.lora_rank)
        self.finder_tower = finder_tower(m, self.vision)
        see, read = self.towers
        channels = () if self.finder_tower is None else cast(VisionTower, self.finder_tower).map_channels
        model = CopeModel(m, channels, see.descriptor_width, read.width)
        if m.regions:
            take_finder(model, config.finder_from, config.model)
        self.objective = Objective(model, config, classes)
        if config.masked_language and read.mask_token is None:
            raise UserError(f"the text tower {m.text!r} has no mask token; set masked_language=0")
        if config.gradient_checkpointing and m.tuning != "frozen":
            see.enable_checkpointing()
            read.enable_checkpointing()

    @property
    def model(self) -> CopeModel:
        """What is learned on top of the towers."""
        return self.objective.model

    @property
    def towers(self) -> tuple[VisionTower, TextTower]:
        """Vision and text."""
        return cast(VisionTower, self.vision), cast(TextTower, self.text)

    def groups(self) -> list[Group]:
        """All that is learned, with the rates of the configuration."""
        config, groups = self.config, self.objective.groups()
        if config.model.tuning != "frozen":
            see, read = self.towers
            groups += tower_groups("vision", see, config.vision_rate, config)
            groups += tower_groups("text", read, config.text_rate, config)
        return groups

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses by name; their sum is to be minimised."""
        batch = batch.to(self.device)
        items: dict[Domain, ItemBatch] = {"page": batch.page, "video": batch.video, "live": batch.live}
        views = self.views(items)
        losses: dict[str, Tensor] = self.objective(views["page"], views["video"], views["live"], batch.weight)
        if self.config.masked_language:
            # Drawn from the step's own random state.
            generator = torch.Generator().manual_seed(int(torch.randint(1 << 62, ())))
            with autocast(self.device, self.config.precision):
                loss = masked_language_loss(cast(MaskedTower, self.text), *_joined([*items.values()]), generator)
            losses["masked language"] = self.config.masked_language * loss
        return losses

    def views(self, items: Mapping[Domain, ItemBatch]) -> dict[Domain, Views]:
        """What the towers see of items on their device, with gradients where towers are tuned.

        bfloat16 ends here: a cosine that is multiplied by the scale of a loss needs all of float32.
        """
        tuned = self.config.model.tuning != "frozen" and torch.is_grad_enabled()
        with torch.set_grad_enabled(tuned), autocast(self.device, self.config.precision):
            words = self.towers[1].forward_tokens(*_joined([*items.values()])).float()
            split = dict(zip(items, torch.split(words, [len(one) for one in items.values()]), strict=True))
            return {domain: self._seen(domain, one, split[domain]) for domain, one in items.items()}

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.attention.device

    def _seen(self, domain: Domain, items: ItemBatch, words: Tensor) -> Views:
        there = items.frame_there  # (B, T)
        b, t = there.shape
        number = torch.arange(t, device=self.device).expand(b, t)
        if domain == "page" or not self.config.model.regions:
            # Each picture is one region.
            crops, regions = items.pixels.flatten(0, 1).float(), 1
            salience = torch.ones(b, t, device=self.device)
            right = there if domain == "page" else torch.zeros_like(there)
            frame = torch.where(there, number, -1)
        else:
            regions = self.config.clip_regions
            pixels, content = items.pixels.flatten(0, 1), items.content.flatten(0, 1)
            boxes, sure = self._found(pixels, content)  # (B * T, K, 4), (B * T, K)
            config = self.config.model
            crops = square_crops(pixels, boxes, content, config.crop_pixels, config.crop_margin).flatten(0, 1)
            truth = items.boxes.view(b * t, 1, 4)
            right = ((pair_iou(boxes, truth) >= RIGHT_IOU) & (sure >= 0)).view(b, t * regions)
            frame = torch.where((sure >= 0).view(b, t, regions) & there.unsqueeze(2), number.unsqueeze(2), -1)
            frame, salience = frame.view(b, t * regions), sure.clamp_min(0).view(b, t * regions)
        see = self.towers[0]
        if isinstance(see, CrossFrameVision) and domain != "page" and not self.config.model.regions:
            descriptors = see.describe_clips(crops.view(b, t, *crops.shape[1:]), there)
        else:
            descriptors = see.describe(crops).float()
        return Views(
            descriptors=descriptors.view(b, t * regions, -1),
            salience=salience,
            frame=frame,
            words=words,
            told=items.told,
            product=items.product,
            right=right & (frame >= 0),
        )

    @torch.no_grad()
    def _found(self, pixels: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """Regions of N frames: boxes (N, K, 4) within the picture, and saliences (N, K), -1 where there is none."""
        tower, config = cast(VisionTower, self.finder_tower), self.config.model
        logits, boxes = self.model.finder(tower.maps(pixels.float()))
        _, h, w = logits.shape
        low, high = content[:, None, :2], content[:, None, 2:]
        xs = (torch.arange(w, device=pixels.device) + 0.5).div(w).view(1, w).expand(h, w)
        ys = (torch.arange(h, device=pixels.device) + 0.5).div(h).view(h, 1).expand(h, w)
        cell = torch.stack([xs, ys], dim=-1).view(1, h * w, 2)
        inside = ((cell > low) & (cell < high)).all(dim=2)  # the rest of the canvas shows nothing
        boxes = boxes.float().flatten(1, 2)
        boxes = torch.cat([boxes[..., :2].maximum(low), boxes[..., 2:].minimum(high)], dim=2)
        salience = torch.where(inside, logits.float().flatten(1).sigmoid(), -1.0)
        return best_regions(boxes, salience, self.config.clip_regions, config.region_overlap)


def tower_groups(name: str, tower: Tunable, rate: float, config: TrainConfig) -> list[Group]:
    """The learned layers of a tower: the last one at `rate`, each one below slower by `layer_decay`."""
    layers = tower.layers()  # what is below the layers proper, these, and what is above them
    groups = []
    for i, parameters in enumerate(layers):
        slowed = rate * config.layer_decay ** max(0, len(layers) - 2 - i)
        groups.append(Group(name, [p for p in parameters if p.dim() > 1], slowed, config.weight_decay))
        groups.append(Group(name, [p for p in parameters if p.dim() <= 1], slowed))
    return [group for group in groups if group.parameters]


def _joined(items: Sequence[ItemBatch]) -> tuple[Tensor, Tensor]:
    """Tokens and masks of several batches of items in one, (N, L) each: one pass through the text tower."""
    length = max(one.tokens.shape[1] for one in items)
    tokens = [functional.pad(one.tokens, (0, length - one.tokens.shape[1])) for one in items]
    masks = [functional.pad(one.mask, (0, length - one.mask.shape[1])) for one in items]
    return torch.cat(tokens), torch.cat(masks)


def pixel_stage(
    module: PixelObjective,
    source: Source,
    config: TrainConfig,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
) -> Stage:
    """Trains everything above the region finder, and the towers as `tuning` says.

    Args:
        module: Towers, model and losses.
        source: Training data.
        config: Configuration of the training run.
        evaluate: See `Stage`.
    """
    tokenize = module.towers[1].tokenize
    ranks = world()
    return Stage(
        name="representation",
        module=module,
        groups=module.groups(),
        batches=lambda start: batches(source, config, tokenize, start_step=start, rank=rank(), world=ranks),
        steps=config.steps,
        batch_size=min(config.batch_products, len(source) // ranks),
        accumulate=config.accumulate,
        after_step=module.objective.after_step,
        evaluate=evaluate,
        skipped=source.counts,
        constant=("vision.", "text.", "finder_tower."),
    )
