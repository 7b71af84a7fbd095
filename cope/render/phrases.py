"""What the host says: names, describes, and chats."""

import re
from dataclasses import dataclass

import numpy as np

_CURRENCIES = {"USD": ("dollars", "美元"), "EUR": ("euros", "欧元"), "CNY": ("yuan", "元"), "GBP": ("pounds", "英镑")}
# Descriptions are written to be read; a host says a sentence of them.
_MAX_SPOKEN_CHARS = 110


@dataclass(frozen=True)
class Offer:
    """What the host knows of a product.

    Attributes:
        id: Identifier of the product.
        title: In the language of the stream.
        price: As on the page, "15.00 USD"; empty if there is none.
        description: As on the page.
    """

    id: str
    title: str
    price: str = ""
    description: str = ""


@dataclass(frozen=True)
class Phrases:
    """Sentences by their place around a showing. `{title}` and `{price}` are filled in."""

    greeting: tuple[str, ...]
    coming: tuple[str, ...]
    here: tuple[str, ...]
    price: tuple[str, ...]
    was: tuple[str, ...]
    vague: tuple[str, ...]
    chat: tuple[str, ...]


PHRASES = {
    "en": Phrases(
        greeting=("Hello everybody, and welcome to the stream.", "Good evening, how nice that you are here."),
        coming=(
            "Next up I have the {title} for you.",
            "And now let me get the {title}.",
            "A lot of you have been asking for the {title}.",
        ),
        here=(
            "Here we have the {title}. Take a good look.",
            "So this is the {title}.",
            "Look at this, the {title}. I really like it.",
            "This one here is our {title}.",
        ),
        price=(
            "Today it is only {price}.",
            "You get it for {price}, and shipping is free.",
            "Just {price}, but only while we are live.",
        ),
        was=(
            "So that was the {title}, for {price}.",
            "Remember, the {title}, the link is below.",
        ),
        vague=(
            "Look how nice this one is. Let me turn it around for you.",
            "Can you all see it? I will hold it closer to the camera.",
            "I use it every day at home, and so does my sister.",
        ),
        chat=(
            "Where are you all watching from tonight?",
            "Thank you so much for the hearts, you are wonderful.",
            "If you are new here, please follow the channel.",
            "My neighbour's dog was barking all night, so I am a little tired.",
            "We will have a short break, and then we go on with the show.",
            "Somebody asks how the weather is. It is raining again.",
            "Let me drink some water first, my throat is dry.",
        ),
    ),
    "zh": Phrases(
        greeting=("大家好，欢迎来到我的直播间。", "大家晚上好，很高兴又见面了。"),
        coming=("接下来给大家带来{title}。", "好多朋友在问{title}，马上就来。", "下面我们来看{title}。"),
        here=(
            "大家看，这个就是{title}。",
            "现在我手里拿的是{title}，大家仔细看一下。",
            "来看这款{title}，我自己也很喜欢。",
            "这一款是我们的{title}。",
        ),
        price=("今天只要{price}。", "直播间价格{price}，还包邮。", "{price}就可以带回家。"),
        was=("刚才这款是{title}，{price}。", "喜欢{title}的朋友，链接在下面。"),
        vague=(
            "这个真的很好看，我转过来给大家看看。",
            "大家看得清楚吗？我拿近一点。",
            "我自己在家每天都用，我妹妹也在用。",
        ),
        chat=(
            "今天晚上大家都是从哪里来的？",
            "谢谢大家的点赞，你们太好了。",
            "新来的朋友可以点一下关注。",
            "昨天晚上邻居家的狗一直在叫，我没有睡好。",
            "我们休息一下，等一会儿再继续。",
            "有人问天气怎么样，今天又下雨了。",
            "我先喝一口水，嗓子有点干。",
        ),
    ),
}


class Host:
    """Picks sentences at random, each again only when all of its kind were said."""

    def __init__(self, language: str, rng: np.random.Generator) -> None:
        self._phrases = PHRASES[language]
        self._language = language
        self._rng = rng
        self._left: dict[str, list[str]] = {}

    def greeting(self) -> str:
        """Opens the stream."""
        return self._pick("greeting")

    def coming(self, offer: Offer) -> str:
        """Names the product before it is shown."""
        return self._filled("coming", offer)

    def here(self, offer: Offer) -> str:
        """Names the product while it is shown."""
        return self._filled("here", offer)

    def details(self, offer: Offer) -> str:
        """Says its price, or a sentence of its description where that is in the host's language."""
        sentence = re.split(r"(?<=[.!?。！？])\s*", offer.description.strip())[0]
        chinese = bool(re.search(r"[\u4e00-\u9fff]", sentence))
        fits = 0 < len(sentence) <= _MAX_SPOKEN_CHARS and chinese == (self._language == "zh")
        if fits and (not offer.price or self._rng.random() < 0.5):
            return sentence
        return self._filled("price", offer) if offer.price else self.vague()

    def was(self, offer: Offer) -> str:
        """Names the product after it was shown."""
        return self._filled("was", offer) if offer.price else self._filled("coming", offer)

    def vague(self) -> str:
        """Talks of what is shown without naming it."""
        return self._pick("vague")

    def chat(self) -> str:
        """Talks of something else."""
        return self._pick("chat")

    def _filled(self, kind: str, offer: Offer) -> str:
        return self._pick(kind).format(title=offer.title, price=spoken_price(offer.price, self._language))

    def _pick(self, kind: str) -> str:
        left = self._left.get(kind) or list(getattr(self._phrases, kind))
        choice = left.pop(int(self._rng.integers(len(left))))
        self._left[kind] = left
        return choice


def spoken_price(price: str, language: str) -> str:
    """Returns "15.00 USD" as a host says it: "15 dollars", "15美元"."""
    match = re.fullmatch(r"\s*(\d+)(?:\.(\d+))?\s*([A-Z]{3})?\s*", price)
    if match is None:
        return price
    whole, part, currency = match.groups()
    number = whole if not part or not part.strip("0") else f"{whole}.{part}"
    english, chinese = _CURRENCIES.get(currency or "", (currency or "", currency or ""))
    return f"{number}{chinese}" if language == "zh" else f"{number} {english}".strip()
