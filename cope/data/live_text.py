"""What a batch reads of titles and of speech, as `TrainConfig.live_text` says."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np

from cope.config import TrainConfig
from cope.data.items import Item, Source
from cope.keywords import Vocabulary, readings

# Products whose titles are the vocabulary beside those of the batch: about a large room's shopping bag. Fewer, and no
# word is rare; more cost every loader process 10 kB and a tenth of a millisecond each.
BACKGROUND = 1_000
NOTHING = ("", 0.0)
# A clip's transcript can be long, and its time grows with it: this is a minute of talk, more than any tower reads.
_LONGEST_SPEECH = 1_000


class LiveText:
    """Turns speech into what the text tower reads.

    Keywords are found as in service, by a `Vocabulary` of titles and categories. The catalogue of a large data set
    would fill the memory of every loader process, so the vocabulary is that of `BACKGROUND` products, the same ones
    throughout, and of the products of the batch: its clips hear their own product's words and those of products
    beside which they are learned. Of a source that is no larger than that, it is the whole catalogue, as in service.
    What a clip's text becomes depends on its batch alone, so a run resumes exactly.
    """

    def __init__(self, source: Source, config: TrainConfig) -> None:
        self._source = source
        self._how = config.live_text

    @contextmanager
    def among(self, products: Iterable[int]) -> Iterator[None]:
        """While it is entered, these products' titles are part of the vocabulary."""
        added: Sequence[int] = []
        if self._how == "keywords":
            added = [number for number in products if self._source.product_id(number) not in self._vocabulary]
            for number in added:
                self._add(self._vocabulary, number)
        try:
            yield
        finally:
            for number in added:
                self._vocabulary.remove(self._source.product_id(number))

    def read(self, item: Item | None) -> tuple[str, float]:
        """What is read with an item: a page's title, or what is `said`; `NOTHING` of an item that is missing."""
        if item is None:
            return NOTHING
        return (item.text.strip(), 1.0) if item.domain == "page" else self.said(item.text)

    def said(self, speech: str) -> tuple[str, float]:
        """What is read of a transcript, keywords as one text; and how surely it names something, in [0, 1]."""
        speech = speech[:_LONGEST_SPEECH].strip()
        if not speech or self._how == "none":
            return NOTHING
        if self._how == "raw":
            return speech, 1.0
        return next(iter(readings(self._vocabulary.extract(speech), "joined")), NOTHING)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        vocabulary = Vocabulary()
        count = min(BACKGROUND, len(self._source))
        for number in np.linspace(0, len(self._source), count, endpoint=False).astype(int).tolist():
            self._add(vocabulary, number)
        return vocabulary

    def _add(self, vocabulary: Vocabulary, number: int) -> None:
        pages = self._source.items(number, "page")
        title = pages[0].text if pages else ""
        if title.strip():
            vocabulary.add(self._source.product_id(number), title, category=self._source.category(number))
