"""What a host might say while something is shown: raw transcripts for rendered clips.

Speech recognisers leave out punctuation's meaning and hosts say much that names nothing, so a transcript is a few
sentences of which perhaps one names the product, whole or in part. Training turns it into keywords with
`cope.keywords`, as service does.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Talk = Literal["named", "other", "chat"]

_NAMING = (
    "so this one is the {name} and I have been using it for weeks",
    "let me show you {name} a little closer",
    "this {name} sold out twice last month",
    "my favourite of today the {name}",
    "we only have a few of the {name} left",
    "do you see how well made this {name} is",
    "the {name} comes in a nice box too",
    "many of you wrote to me about the {name}",
)
_CHAT = (
    "thanks for joining everybody",
    "tap the heart if you can hear me",
    "it is so warm in the studio today",
    "we ship within two days",
    "who is here for the first time",
    "I had no coffee this morning",
    "the first fifty orders get a gift",
    "let me check your questions",
    "hello to all of you from the south",
    "my colleague will read the comments",
    "we go on until ten o'clock",
    "I will turn it around once more",
)


def transcript(rng: np.random.Generator, names: Sequence[str], talk: Talk = "named") -> str:
    """Returns a few sentences, as a recogniser writes them down.

    Args:
        rng: Source of the choice.
        names: Of the product that is named; of `other`, of the products that are named instead; else unused.
        talk: `named` says the product's name, or in one of four cases only its last word; `other` names something
            that is not shown; `chat` names nothing. Where there is no name to say, everything is chat.
    """
    said = [_CHAT[int(i)] for i in rng.choice(len(_CHAT), int(rng.integers(1, 4)), replace=False)]
    if talk != "chat" and names:
        name = names[int(rng.integers(len(names)))]
        if talk == "named" and rng.random() < 0.25:
            name = name.split()[-1] if name.split() else name
        if name:
            said.insert(int(rng.integers(len(said) + 1)), _NAMING[int(rng.integers(len(_NAMING)))].format(name=name))
    return ". ".join(said)
