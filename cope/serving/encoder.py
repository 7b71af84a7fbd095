"""The one class through which workers use COPE: pictures and strings in, vectors of the shared space out.

Each picture and each text goes through its tower alone: what a thing is encoded to never depends on what it
was batched with, so a replay, a restart and six processes all see the same vectors.
"""

import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cope.domains import Domain
from cope.errors import UserError
from cope.keywords import readings, told
from cope.model.scoring import Calibration
from cope.runtime.device import choose, native_bfloat16
from cope.serving import artefact as artefacts
from cope.serving.looking import Looker, as_tensor
from cope.towers.compiled import CompiledVision, frozen_text, frozen_vision
from cope.towers.interface import Tower, mean_text
from cope.towers.packaged import TextTower, VisionTower, finder_tower, text_tower, vision_tower

Pixels = NDArray[np.uint8]
Half = NDArray[np.float16]

# Keyword phrases repeat from window to window; 4,096 vectors of 384 float32 are 6 MB.
TEXT_CACHE = 4096


@dataclass(frozen=True)
class FrameFeatures:
    """What of one frame is kept.

    Attributes:
        regions: (K, D) float16, rows L2-normalised, most salient first.
        salience: (K,) float32 in [0, 1]: how surely something is being shown there.
        boxes: (K, 4) float32: x0, y0, x1, y1 relative to the frame.
        picture: (S, S, 3) uint8, the frame as the tower takes it, where a window's frames go through the tower
            together (X-CLIP); else None.
    """

    regions: NDArray[np.float16]
    salience: NDArray[np.float32]
    boxes: NDArray[np.float32]
    picture: Pixels | None = None


@dataclass(frozen=True)
class _Words:
    """Words as the model takes them: (1, D), and how surely they name something, in [0, 1]."""

    vector: Tensor
    told: float


@dataclass(frozen=True)
class WindowInput:
    """The frames of a window, by time, and the keywords with their weights. Either may be empty."""

    frames: Sequence[FrameFeatures]
    keywords: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class PageInput:
    """A product page.

    Attributes:
        title: As shown in the shop; may be empty.
        images: (H, W, 3) uint8 RGB each; may be none.
        text: What else the page says: brand, category, attributes, description.
    """

    title: str
    images: Sequence[Pixels]
    text: str = ""


@dataclass(frozen=True)
class PageOutput:
    """A product page in the shared space.

    Attributes:
        vectors: (N, D) float16, L2-normalised; what regions are compared with. Each usable picture has equally many in
            a row: its views.
        fused: (D,) float16, pictures and text together, L2-normalised; what windows are compared with. Zero
            if the page has neither.
        text: (D,) float16, L2-normalised; what speech is compared with. (0,) if the page has no text.
    """

    vectors: NDArray[np.float16]
    fused: NDArray[np.float16]
    text: NDArray[np.float16] = field(default_factory=lambda: np.zeros(0, np.float16))


class Encoder:
    """Encodes frames, windows of a stream, and product pages. Safe to share between threads.

    Attributes:
        version: Name and content hash, as in "cope-mini@3fa1c2d4".
        calibration: Of the scores.
        config: What the model is built of.
        dim: D.
        precision: Of the towers.
        live_text: What of speech the model was trained to hear; at `none` windows leave their keywords out.
        modalities: What it was trained on; the other is left out of windows and pages.
        device: Where they are.
        model: What was learned on top of the towers.
        vision: The tower that describes.
        finder: The tower whose maps the region finder reads; None where frames are taken as a whole.
        looker: Finds and cuts out what is shown.
        live_vision: The tower that describes what is shown in frames: `vision`, or the same one in bfloat16.
        live_looker: Finds it there; likewise.
    """

    def __init__(
        self,
        path_or_name: str | Path = "cope-mini",
        device: str = "auto",
        threads: int = 0,
        native: bool = False,
    ) -> None:
        """Loads an artefact and its vision tower.

        Args:
            path_or_name: An artefact's folder, or the name of one that ships.
            device: "auto", "cpu", "cuda", "cuda:1", ...
            threads: That compute on a CPU; 0 leaves PyTorch's own choice.
            native: Look at frames in bfloat16 instead of float32, if the device computes in it natively and that is
                faster: with the packaged tower on a CPU, with each on a GPU. Of the same crop both vectors have a
                cosine of 0.98 or more, so the version is the same. Pages and texts keep the artefact's precision: an
                index is the same on all machines.

        Raises:
            UserError: There is no such artefact or device, a tower's weights are not installed, or they do not fit.
        """
        if threads:
            torch.set_num_threads(threads)
        self.device = choose(device)
        loaded = artefacts.load(path_or_name)
        self._loaded = loaded
        self.precision = loaded.precision
        self.live_text, self.modalities = loaded.live_text, loaded.modalities
        self.version: str = loaded.version
        self.calibration: Calibration = loaded.calibration
        self.config = loaded.config
        self.dim: int = loaded.config.dim
        self.model = loaded.model().to(self.device)
        vision = self.tower("vision")
        self.vision = cast(VisionTower, vision)
        if self.vision.descriptor_width != self.model.visual.width:
            raise UserError(f"the model {loaded.folder} is of another vision tower than {self.config.vision}")
        self.finder = cast("VisionTower | None", finder_tower(self.config, vision, partial(self._frozen, "vision")))
        self.looker = Looker(self.config, self.model.finder, self.finder, self.device, self.computing)
        self._native = native and self.precision == "float32" and native_bfloat16(self.device)
        self.live_vision: VisionTower = self._for_frames(self.vision)
        self.live_looker = Looker(
            self.config,
            self.model.finder,
            self._for_frames(self.finder),
            self.device,
            partial(self.computing, live=True),
        )
        # Frames of a window see one another in the tower, so they go through it once more for each window.
        self._together = self.vision.cross_frame and not self.config.regions
        self._lock = threading.Lock()
        self._texts: OrderedDict[str, Tensor] = OrderedDict()

    def tower(self, kind: artefacts.Kind, tuned: bool = True) -> nn.Module:
        """Opens a tower at its own speed.

        Args:
            kind: Which.
            tuned: As it was trained; else as it was before, by its name, also where a trained one travels along.

        Raises:
            UserError: Its weights are not installed, or they do not fit.
        """
        loaded, config = self._loaded, self.config
        if config.tuning == "frozen" or not tuned:
            return self._frozen(kind, config.vision if kind == "vision" else config.text)
        opened = vision_tower if kind == "vision" else text_tower
        tower = opened(loaded.tower_name(kind), config.tuning, config.lora_rank, not loaded.carried(kind))
        if isinstance(tower, Tower):
            tower.load_tuned(loaded.tower(kind))
            tower.merge()
            tower.requires_grad_(False)
        return self._placed(tower)

    def _frozen(self, kind: artefacts.Kind, name: str) -> nn.Module:
        """A tower as it was before any training."""
        if self.device.type == "cpu" and not (kind == "text" and self.precision == "int8"):
            opened = frozen_vision if kind == "vision" else frozen_text
            return self._placed(opened(name, torch.get_num_threads(), self.precision == "bfloat16"))
        return self._placed((vision_tower if kind == "vision" else text_tower)(name))

    def _for_frames(self, tower: Any) -> Any:
        return tower.in_bfloat16() if self._native and isinstance(tower, CompiledVision) else tower

    def _placed(self, tower: nn.Module) -> nn.Module:
        if self.precision == "int8" and self.device.type == "cpu":
            _quantise(tower)
        return tower.to(self.device)

    @property
    def reading(self) -> str:
        """Reader of the words in frames and page pictures, by name; empty: the model does not use them."""
        return self.config.reading

    @cached_property
    def text(self) -> TextTower:
        """Loaded with the first text: half of the memory, and capture-only work never needs it."""
        return cast(TextTower, self.tower("text"))

    def computing(self, live: bool = False) -> torch.autocast:
        """What the towers run under, also where they look at frames (`live`)."""
        lower = live and self._native and self.device.type != "cpu"  # on a CPU, PyTorch is no faster in bfloat16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=lower or self.precision == "bfloat16")

    @torch.inference_mode()
    def encode_frames(self, images: Sequence[Pixels]) -> list[FrameFeatures]:
        """Finds and describes what is shown in frames.

        Args:
            images: (H, W, 3) uint8 RGB each, of any sizes.
        """
        return [self._frame(image) for image in images]

    def _frame(self, image: Pixels) -> FrameFeatures:
        boxes, salience = self.live_looker.find(image)
        crops = self.live_looker.crops(image, boxes)
        picture = crops[0] if self._together else None
        return FrameFeatures(self._project(crops, "live"), salience, boxes, picture)

    @torch.inference_mode()
    def encode_pages(self, pages: Sequence[PageInput]) -> list[PageOutput]:
        """Encodes product pages; pictures of no size are left out."""
        return [self._page(page) for page in pages]

    def _page(self, page: PageInput) -> PageOutput:
        usable = [image for image in page.images if min(image.shape[:2]) > 0 and self.modalities != "text"]
        vectors = np.concatenate(
            [self._project(self.looker.page_crops(image), "page") for image in usable]
            or [np.zeros((0, self.dim), np.float16)]
        )
        texts = [(page.title, 1.0), (page.text, 0.3)] if self.modalities != "vision" else []
        words = self._words(readings(texts, "mean"), told=1.0)
        if not len(vectors) and words is None:
            return PageOutput(vectors, np.zeros(self.dim, np.float16))
        (text,) = self.encode_speech([". ".join(text for text, _ in texts if text)])
        picture = shown = None
        if len(vectors):
            each = torch.from_numpy(vectors).float().to(self.device)
            picture = nn.functional.normalize(each.mean(dim=0, keepdim=True), dim=-1)
            shown = (each.unsqueeze(0), torch.ones(1, len(each), dtype=torch.bool, device=self.device))
        return PageOutput(vectors, self._fuse(picture, words, "page", shown), text)

    def _fuse(
        self,
        picture: Tensor | None,
        words: _Words | None,
        domain: Domain,
        shown: tuple[Tensor, Tensor] | None = None,
    ) -> Half:
        none = torch.zeros(1, self.dim, device=self.device)
        fused = self.model.fuse(
            none if picture is None else picture,
            torch.tensor([picture is not None], device=self.device),
            none if words is None else words.vector,
            torch.tensor([0.0 if words is None else words.told], device=self.device),
            domain,
            shown,
        )
        row: Half = _half(fused)[0]
        return row

    @torch.inference_mode()
    def encode_speech(self, texts: Sequence[str]) -> list[Half]:
        """Encodes what is said, or what pages say, by its meaning: (D,) float16 each, L2-normalised.

        A text that is empty has a vector of no length, and so has each if the model hears no speech.
        """
        return [self._meaning(text) for text in texts]

    def _meaning(self, text: str) -> Half:
        if not text.strip() or self.live_text == "none" or self.modalities == "vision":
            return np.zeros(0, np.float16)
        projected = self.model.text(self._text_vector(text).unsqueeze(0))
        row: Half = _half(nn.functional.normalize(projected, dim=-1))[0]
        return row

    @torch.inference_mode()
    def encode_windows(self, windows: Sequence[WindowInput]) -> NDArray[np.float16]:
        """Encodes windows of a stream: (B, D) float16, L2-normalised; a zero row where there is nothing."""
        out = np.zeros((len(windows), self.dim), np.float16)
        hears = self.live_text != "none" and self.modalities != "vision"
        for i, window in enumerate(windows):
            keywords = window.keywords if hears else []
            words = self._words(readings(keywords, self.config.keywords), told(keywords))
            frames = window.frames if self.modalities != "text" else []
            picture = self._pool([f for f in frames if len(f.regions)])
            if picture is not None or words is not None:
                out[i] = self._fuse(picture, words, "live")
        return out

    def _pool(self, frames: Sequence[FrameFeatures]) -> Tensor | None:
        """(1, D); None if there are no frames."""
        if not frames:
            return None
        pictures = [f.picture for f in frames if f.picture is not None]
        if self._together and len(pictures) == len(frames):
            regions = torch.from_numpy(self._project(pictures, "live", len(frames))).float()
        else:
            regions = torch.from_numpy(np.concatenate([f.regions for f in frames])).float()
        salience = torch.from_numpy(np.concatenate([f.salience for f in frames])).float()
        index = torch.repeat_interleave(torch.arange(len(frames)), torch.tensor([len(f.regions) for f in frames]))
        return self.model.pool(
            regions.unsqueeze(0).to(self.device),
            salience.unsqueeze(0).to(self.device),
            index.unsqueeze(0).to(self.device),
        )

    def _project(self, crops: Sequence[Pixels], domain: Domain, frames: int = 1) -> Half:
        if not crops:
            return np.zeros((0, self.dim), np.float16)
        live = domain == "live"
        with self.computing(live):
            descriptors = (self.live_vision if live else self.vision).describe(as_tensor(crops, self.device), frames)
        return _half(self.model.visual(descriptors.float(), domain))

    def _words(self, texts: Sequence[tuple[str, float]], told: float) -> _Words | None:
        """The weighted mean of the texts' vectors, projected; None if there is no text."""
        if not texts:
            return None
        return _Words(self.model.text(mean_text(texts, self._text_vector).unsqueeze(0)), told)

    def _text_vector(self, text: str) -> Tensor:
        with self._lock:
            found = self._texts.get(text)
            if found is not None:
                self._texts.move_to_end(text)
                return found
            with self.computing():
                vector = self.text.encode(text, self.config.text_tokens)
            self._texts[text] = vector
            if len(self._texts) > TEXT_CACHE:
                self._texts.popitem(last=False)
            return vector


def _quantise(tower: nn.Module) -> None:
    """Linear layers compute in 8 bits, activations scaled as they come."""
    if not isinstance(tower, Tower):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces a package of its own for this
        try:
            from torch.ao.quantization import quantize_dynamic
        except ImportError:
            raise UserError(
                "this PyTorch has no dynamic quantisation; export the model with precision=bfloat16"
            ) from None
        for layer in tower.stack():
            quantize_dynamic(layer, {nn.Linear}, dtype=torch.qint8, inplace=True)  # type: ignore[no-untyped-call]


def _half(vectors: Tensor) -> Half:
    half: Half = vectors.cpu().to(torch.float16).numpy()
    return half
