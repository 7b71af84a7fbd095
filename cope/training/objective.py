"""What COPE minimises: losses between the page, the video and the live clip of the products of a batch.

Of the paper: symmetric InfoNCE over the pairs of domains, on what is seen and on what is seen and said together, and
classification of products. Beyond it, single regions against pages, since recognition compares those.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from cope.config import TrainConfig
from cope.domains import Domain
from cope.model.modeling import CopeModel, Embedded
from cope.model.views import NOBODY, Views
from cope.runtime.distributed import gather
from cope.training.losses import Temperature, info_nce, region_loss
from cope.training.product_softmax import SampledProductSoftmax
from cope.training.trainer import Group

# Pages are what everything is searched among; a video and a live clip are never compared in service.
PAIRS: tuple[tuple[Domain, Domain, float], ...] = (
    ("page", "live", 1.0),
    ("page", "video", 1.0),
    ("video", "live", 0.5),
)
# Parameters of so few numbers are weights and scales, not maps.
SCALARS = 8


class Objective(nn.Module):
    """A model together with its losses, which have a few parameters of their own."""

    def __init__(self, model: CopeModel, config: TrainConfig, classes: int) -> None:
        """Builds the losses.

        Args:
            model: To be trained.
            config: Weights and temperatures.
            classes: Products of the data, for the classification.
        """
        super().__init__()
        self.model = model
        self.config = config
        self.scale = Temperature(config.temperature, config.learn_temperature)
        self.products: SampledProductSoftmax | None = None
        if config.classification > 0:
            self.products = SampledProductSoftmax(
                classes, config.model.dim, config.classes_sampled, config.margin, config.margin_scale, seed=config.seed
            )

    def forward(self, page: Views, video: Views, live: Views, weight: Tensor | None = None) -> dict[str, Tensor]:
        """The weighted losses of a batch by name; their sum is to be minimised.

        Args:
            page: B pages; rows of products without one have `NOBODY`.
            video: B short videos, likewise.
            live: B live clips, likewise.
            weight: (B,) how much each product counts; None: all the same.
        """
        views: dict[Domain, Views] = {
            "page": self.shaped(page, "page"),
            "video": self.shaped(video, "video"),
            "live": self.shaped(live, "live"),
        }
        found = {domain: self.model.embed(one, domain) for domain, one in views.items()}
        ids = {domain: gather(one.product) for domain, one in views.items()}
        weights = None if weight is None else gather(weight)
        scale, smoothing = self.scale(), self.config.label_smoothing
        losses: dict[str, Tensor] = {}

        def contrast(kind: str, part: dict[Domain, Tensor]) -> None:
            for a, b, share in PAIRS:
                loss = info_nce(part[a], ids[a], part[b], ids[b], scale, smoothing, weights, weights)
                losses[f"{kind} {a}-{b}"] = share * loss

        fused = {domain: gather(one.fused) for domain, one in found.items()}
        if self.config.modalities != "text":
            visual = {domain: gather(one.visual) for domain, one in found.items()}
            contrast("visual", visual)
            losses |= self._regions(views, found, visual["page"], ids["page"], weights)
        if self.config.modalities != "vision":
            contrast("fused", fused)
        if self.products is not None:
            # Rows of this process: the softmax gathers what it needs.
            kinds = ("fused", "visual") if self.config.modalities == "both" else ("fused",)
            vectors = torch.cat([getattr(one, kind) for kind in kinds for one in found.values()])
            products = torch.cat([one.product for one in views.values()] * len(kinds))
            each = None if weight is None else weight.repeat(len(views) * len(kinds))
            losses["classification"] = self.config.classification * self.products(vectors, products, each)
        return losses

    def after_step(self, share: float) -> None:
        """Updates what is not in the optimiser: the classes that the last step compared with.

        Args:
            share: Share of the peak learning rates, in [0, 1].
        """
        if self.products is not None:
            self.products.update(share)

    def groups(self) -> list[Group]:
        """What is learned on top of the towers, but for the region finder, which has a stage of its own."""
        scalars: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        decaying: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            if parameter.requires_grad and not name.startswith("model.finder."):
                few = parameter.numel() <= SCALARS
                (scalars if few else plain if parameter.dim() < 2 else decaying).append(parameter)
        rate = self.config.learning_rate
        return [
            Group("heads", decaying, rate, self.config.weight_decay),
            Group("heads", plain, rate),
            # Scalars move tenfold faster: how much words count must get from 0.5 to 2 within the run.
            Group("scalars", scalars, 10 * rate),
        ]

    def shaped(self, views: Views, domain: Domain) -> Views:
        """Takes away what this run is not to see: a modality, or what is said in clips.

        An item of which nothing is left shows no product: its vector is the same for all such items.
        """
        if self.config.modalities == "vision" or (domain != "page" and self.config.live_text == "none"):
            views = views.without_words()
        if self.config.modalities == "text":
            views = views.without_pictures()
        left = (views.told > 0) | (views.frame >= 0).any(dim=1)
        return replace(views, product=torch.where(left, views.product, NOBODY))

    def _regions(
        self,
        views: dict[Domain, Views],
        found: dict[Domain, Embedded],
        page: Tensor,
        ids: Tensor,
        weight: Tensor | None,
    ) -> dict[str, Tensor]:
        config, losses = self.config, {}
        domains: tuple[Domain, ...] = ("live", "video") if config.region_contrast else ()
        for domain in domains:
            one = views[domain]
            regions, product = gather(found[domain].regions), gather(one.product)
            frame, right = gather(one.frame), gather(one.right)
            loss = region_loss(
                regions, frame, right, product, page, ids, self.scale(), config.label_smoothing, weight, weight
            )
            losses[f"regions page-{domain}"] = config.region_contrast * loss
        return losses
