"""Measures a model on a data set, from its towers to the report. `cope.evaluate` is its command."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cope.config import Modalities
from cope.data.items import Counts
from cope.data.opening import open_source
from cope.domains import Split
from cope.errors import UserError
from cope.evaluation.collecting import Sampling, evaluation_set
from cope.evaluation.describing import Describer
from cope.evaluation.measures import Figures
from cope.evaluation.reading import read_words
from cope.evaluation.report import write
from cope.evaluation.sets import KEYWORDS, EvaluationSet, Read
from cope.evaluation.space import pictured
from cope.evaluation.suite import Protocol, measure
from cope.runtime.progress import Progress
from cope.serving.encoder import Encoder


@dataclass(frozen=True)
class Options:
    """How a model is measured.

    Attributes:
        split: Side of the data's split.
        sampling: Which part of that side.
        protocol: Sizes of the protocols.
        text: What a clip's speech becomes (see `TrainConfig.live_text`); "" for what the model was trained with, and
            keywords to compare with titles, as recognition does whatever a model hears.
        read: Whether the words in pictures are read too.
        device: "auto", "cpu", "cuda", ...
        workers: Processes that read pictures.
        cache: Where descriptors are kept; None for a folder beside the report.
    """

    split: Split = "test"
    sampling: Sampling = field(default_factory=Sampling)
    protocol: Protocol = field(default_factory=Protocol)
    text: str = ""
    read: bool = False
    device: str = "auto"
    workers: int = 1
    cache: Path | None = None


def evaluate(model: str | Path, data: str, out: Path, options: Options, ablations: Sequence[Figures] = ()) -> Figures:
    """Measures a model, writes the report and returns its figures.

    Args:
        model: Name or folder.
        data: Folder or URL.
        out: The report's folder.
        options: How.
        ablations: Rows of `cope.ablations` for the report.

    Raises:
        UserError: The model, the data or the device are not there, the model hears nothing and `text` is given, or the
            report cannot be written.
    """
    encoder = Encoder(model, options.device)
    hears = encoder.modalities != "vision"
    if options.text and not hears and not (options.read and options.text == "none"):
        raise UserError(f"{encoder.version} was trained on pictures alone and is given no words; leave --text out")
    cache = options.cache or out / "cache"
    describer = Describer(encoder)
    items, about = read_items(describer, data, cache, options)
    if options.read:
        items = replace(items, read=_read(describer, data, cache, options))
    untuned = items
    if encoder.config.tuning != "frozen":
        untuned, _ = read_items(_untuned(encoder), data, cache, options)
    text = options.text or (encoder.live_text if hears else "none")
    shaped, bare = (as_heard(one, text, encoder.modalities) for one in (items, untuned))
    if options.text not in ("", KEYWORDS):
        shaped = shaped.matched_by(options.text)
    figures, drawn = measure(encoder.model, encoder.calibration, shaped, bare, encoder.device, options.protocol, hears)
    told: Figures = {
        "model": encoder.version,
        "data": items.name,
        "fingerprint": items.fingerprint,
        "split": options.split,
        "text": text,
        "reads": options.read,
        "modalities": encoder.modalities,
        "sampling": asdict(options.sampling),
        "protocol": asdict(options.protocol),
        "about": about,
    }
    told |= {"ablations": list(ablations)} if ablations else {}
    write(out, told | figures, drawn)
    return told | figures


def _untuned(encoder: Encoder) -> Describer:
    """The towers before any training: what a model that has tuned them is compared with."""
    try:
        return Describer(encoder, tuned=False)
    except UserError as error:
        raise UserError(f"a tuned model is measured beside its towers as they were before: {error}") from None


def read_items(describer: Describer, data: str, cache: Path, options: Options) -> tuple[EvaluationSet, dict[str, Any]]:
    """The evaluation set of some data as the model's towers see it; see `evaluation_set`.

    Raises:
        UserError: As `evaluation_set`; or not one picture could be read.
    """
    source = open_source(data, options.split)
    progress = Progress()
    try:
        items, about = evaluation_set(
            describer, source, options.split, cache, options.sampling, options.workers, progress
        )
    finally:
        progress.close()
    if not any(bool(pictured(views).any()) for views in items.views.values()):
        raise UserError(
            f"{items.name}: not one picture could be read ({Counts(about['skipped'])}); put them where the data "
            f"name them"
        )
    return items, about


def _read(describer: Describer, data: str, cache: Path, options: Options) -> Read:
    progress = Progress()
    try:
        source = open_source(data, options.split)
        return read_words(describer, source, cache, options.sampling, options.workers, progress)
    finally:
        progress.close()


def as_heard(items: EvaluationSet, text: str, modalities: Modalities) -> EvaluationSet:
    """The items with what a model is to hear and see of them, as it was trained."""
    if modalities == "vision":
        return items.without_words()
    items = items if text == KEYWORDS else items.saying(text)
    return items.without_pictures() if modalities == "text" else items
