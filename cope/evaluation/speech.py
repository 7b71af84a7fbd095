"""What is said with the items of an evaluation set: as keywords, as it stands, and replaced by other talk."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cope.data.items import Item
from cope.domains import DOMAINS, Domain
from cope.evaluation.describing import Describer
from cope.evaluation.sets import CHAT, KEYWORDS, MISLED, RAW, Words
from cope.keywords import Vocabulary, page_terms, query_terms, text_score, told
from cope.render.speech import transcript

# Unrelated chatter for data whose speech is Chinese; for all other there is `cope.render.speech`.
_CHINESE_CHAT = (
    "欢迎新来的朋友们",
    "能听到的扣个一",
    "今天直播间好热闹",
    "我们四十八小时内发货",
    "喜欢主播的点个关注",
    "前五十单都有礼物送",
    "大家有什么问题打在公屏上",
    "今天早上还没喝水",
    "我们播到晚上十点",
    "谢谢大家的支持",
)

# Titles of a product that are compared with what is said; more only repeat it.
_TITLES = 5


@dataclass(frozen=True)
class Speech:
    """Of the B items of a domain; see `EvaluationSet`."""

    keywords: list[list[tuple[str, float]]]
    words: dict[str, Words]
    naming: Tensor


def said(
    describer: Describer,
    categories: Sequence[str],
    items: Mapping[Domain, Sequence[Item]],
    product: Mapping[Domain, Tensor],
    seed: int,
    report: Callable[[str, int, int], None] | None = None,
) -> dict[Domain, Speech]:
    """Reads titles and transcripts. The vocabulary is that of the pages: in service it is the catalogue's.

    Args:
        describer: Gives the text tower that reads.
        categories: Categories of the products.
        items: By domain.
        product: By domain, (B,) int64, the numbers of the items' products.
        seed: Seed of what is said in place of the clips' own speech.
        report: Told of progress.
    """
    rng = np.random.default_rng([seed, 1])
    vocabulary = Vocabulary()
    titles: dict[int, list[str]] = {}
    for item, number in zip(items["page"], product["page"].tolist(), strict=True):
        vocabulary.add(item.id, item.text, category=categories[number])
        if item.text.strip() and len(titles.setdefault(number, [])) < _TITLES:
            titles[number].append(item.text)
    terms = {number: [page_terms(title) for title in some] for number, some in titles.items()}
    out: dict[Domain, Speech] = {}
    for domain in DOMAINS:
        texts = [item.text for item in items[domain]]
        if domain == "page":
            read = [[(text, 1.0)] if text.strip() else [] for text in texts]
            words = {KEYWORDS: _vectors(describer, read, "titles", report)}
            out[domain] = Speech(read, words, words[KEYWORDS].told.double())
            continue
        read = [vocabulary.extract(text) if text.strip() else [] for text in texts]
        chinese = 2 * sum(_is_chinese(text) for text in texts) > sum(bool(text.strip()) for text in texts)
        chats = [vocabulary.extract(_chat(rng, chinese)) for _ in texts]
        raw = [[(text, 1.0)] for text in texts]
        words = {
            KEYWORDS: _vectors(describer, read, f"keywords of {domain} items", report),
            RAW: _vectors(describer, raw, f"speech of {domain} items", report),
            CHAT: _vectors(describer, chats),
            MISLED: _vectors(describer, _exchanged(rng, read, product[domain])),
        }
        scores = [
            max((text_score(page, query_terms(keywords)) for page in terms.get(number, [])), default=0.0)
            for keywords, number in zip(read, product[domain].tolist(), strict=True)
        ]
        out[domain] = Speech(read, words, torch.tensor(scores, dtype=torch.float64))
    return out


def _vectors(
    describer: Describer,
    weighted: Sequence[Sequence[tuple[str, float]]],
    what: str = "",
    report: Callable[[str, int, int], None] | None = None,
) -> Words:
    vectors = torch.zeros(len(weighted), describer.text_width)
    surety = torch.zeros(len(weighted))
    for row, one in enumerate(weighted):
        vector = describer.words(one)
        if vector is not None:
            vectors[row], surety[row] = vector, told(one)
        if report is not None:
            report(what, row + 1, len(weighted))
    return Words(vectors, surety)


def _exchanged(
    rng: np.random.Generator, read: Sequence[list[tuple[str, float]]], product: Tensor
) -> list[list[tuple[str, float]]]:
    """For each clip the keywords of one of another product."""
    talking = [row for row, keywords in enumerate(read) if keywords]
    numbers = product.tolist()
    out: list[list[tuple[str, float]]] = []
    for row in range(len(read)):
        others = [talking[int(i)] for i in rng.integers(0, len(talking), 8)] if talking else []
        other = next((o for o in others if numbers[o] != numbers[row]), None)
        out.append([] if other is None else read[other])
    return out


def _chat(rng: np.random.Generator, chinese: bool) -> str:
    if not chinese:
        return transcript(rng, [], "chat", "test")
    some = rng.choice(len(_CHINESE_CHAT), int(rng.integers(1, 4)), replace=False)
    return "。".join(_CHINESE_CHAT[int(i)] for i in some)


def _is_chinese(text: str) -> bool:
    return any("一" <= letter <= "鿿" for letter in text)
