"""What is written of products and said about them, through the frozen text tower, once before training."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cope.config import TrainConfig
from cope.keywords import Vocabulary, readings, told
from cope.render.speech import CHAT, NAMING, transcript
from cope.runtime.files import full_disk, whole, write_whole
from cope.towers.interface import TextTower, mean_text

# Names as shops write them, so that a page's text is not word for word what is said.
TITLES = ("{name}, new arrival", "original {name}", "{name} for the home", "classic {name} gift", "{name}")
TRANSCRIPTS = 3  # of each product; more bring little, the tower reads each once
CHATS = 300
TEXTS_AT_ONCE = 64


@dataclass(frozen=True)
class Named:
    """A product by its name, "" for none, and what was said about it, if that was recorded."""

    id: str
    name: str
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Texts:
    """What is written of and said about P products, through the frozen text tower.

    Attributes:
        titles: (P, W) one page text per product.
        named: (P,) bool; made-up things have no name, and their pages no text.
        spoken: (P, M, W) the keywords of M transcripts in which a host names it, or these as they stand.
        told: (P, M) in [0, 1], how surely they name something; 0 where nothing is left of them.
        chat: (C, W) the same of transcripts that name nothing.
        chat_told: (C,) likewise.
    """

    titles: Tensor
    named: Tensor
    spoken: Tensor
    told: Tensor
    chat: Tensor
    chat_told: Tensor


@torch.inference_mode()
def written(products: Sequence[Named], tower: TextTower, config: TrainConfig) -> Texts:
    """Writes, says, and reads all of it."""
    rng = np.random.default_rng(config.seed)
    titles = [TITLES[int(rng.integers(len(TITLES)))].format(name=p.name) if p.name else "" for p in products]
    vocabulary = Vocabulary()
    for product, title in zip(products, titles, strict=True):
        vocabulary.add(product.id, title)

    def said(talk: str) -> list[tuple[str, float]]:
        if config.live_text == "raw":
            return [(talk, 1.0)]
        return readings(vocabulary.extract(talk, "en"), config.model.keywords)

    spoken = [
        said(product.said[at % len(product.said)] if product.said else transcript(rng, [product.name]))
        if product.name
        else []
        for product in products
        for at in range(TRANSCRIPTS)
    ]
    chat = [said(transcript(rng, [], "chat")) for _ in range(CHATS)]
    everything = [*((title, 1.0) for title in titles), *(one for talk in (*spoken, *chat) for one in talk)]
    vectors = _encoded(tower, sorted({text for text, _ in everything if text}, key=len), config.model.text_tokens)

    def mean(talk: Sequence[tuple[str, float]]) -> Tensor:
        return mean_text(talk, vectors.__getitem__) if talk else torch.zeros(tower.width)

    shape = (len(products), TRANSCRIPTS)
    return Texts(
        titles=torch.stack([mean([(title, 1.0)] if title else []) for title in titles]),
        named=torch.tensor([bool(title) for title in titles]),
        spoken=torch.stack([mean(talk) for talk in spoken]).view(*shape, -1),
        told=torch.tensor([told(talk) for talk in spoken]).view(shape),
        chat=torch.stack([mean(talk) for talk in chat]),
        chat_told=torch.tensor([told(talk) for talk in chat]),
    )


def _encoded(tower: TextTower, texts: Sequence[str], max_tokens: int) -> dict[str, Tensor]:
    """The vector of each text, (W,). Texts of about one length go through the tower together."""
    out: dict[str, Tensor] = {}
    for at in range(0, len(texts), TEXTS_AT_ONCE):
        some = texts[at : at + TEXTS_AT_ONCE]
        tokens = [torch.tensor(tower.tokenize(text, max_tokens)) for text in some]
        padded = nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in tokens], batch_first=True).bool()
        out |= zip(some, tower.forward_tokens(padded, mask).cpu().clone(), strict=True)
    return out


def kept(products: Sequence[Named], tower: TextTower, config: TrainConfig, cache: Path) -> Texts:
    """The same as `written`, from the cache where it is there.

    Raises:
        UserError: The disk is full, or what is kept is damaged.
    """
    m = config.model
    lines = [CHAT["train"], NAMING["train"]]
    how = [m.text, m.text_tokens, m.keywords, config.live_text == "raw"]
    what = [how, config.seed, lines, [[p.id, p.name, *p.said] for p in products]]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
    file = cache / f"texts-{key}.pt"
    if not file.is_file():
        texts = vars(written(products, tower, config))
        with full_disk(file):
            cache.mkdir(parents=True, exist_ok=True)
            write_whole(file, lambda out: torch.save(texts, out))
    with whole(file):
        return Texts(**torch.load(file, weights_only=True))
