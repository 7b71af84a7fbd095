"""What a host might say while something is shown: raw transcripts for rendered clips.

Speech recognisers leave out punctuation's meaning and hosts say much that names nothing, so a transcript is a few
sentences of which perhaps one names the product, whole or in part. Training turns it into keywords with
`cope.keywords`, as service does. Each side of the split has sentences of its own: what a model makes of chatter is
measured on chatter that it has never heard.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from cope.domains import Split

Talk = Literal["named", "other", "chat"]

NAMING: Mapping[Split, Sequence[str]] = {
    "train": (
        "so this one is the {name} and I have been using it for weeks",
        "let me show you {name} a little closer",
        "this {name} sold out twice last month",
        "my favourite of today the {name}",
        "we only have a few of the {name} left",
        "do you see how well made this {name} is",
        "the {name} comes in a nice box too",
        "many of you wrote to me about the {name}",
    ),
    "val": (
        "next up we have the {name}",
        "if you are looking for a gift take the {name}",
        "look at this {name} in my hand",
        "I ordered the {name} for my sister as well",
    ),
    "test": (
        "here comes the {name} everybody",
        "this {name} is half price until midnight",
        "you can find the {name} under the first link",
        "hold on I want to turn the {name} around for you",
    ),
}
CHAT: Mapping[Split, Sequence[str]] = {
    "train": (
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
        "yesterday I took the train and it was an hour late",
        "our dog is sleeping under the table",
        "somebody asks whether we send to the islands",
        "you can pay by card or when it arrives",
        "please be patient the picture froze for a moment",
        "my mother is watching too say hello to her",
        "what is the weather like where you are",
        "in spring we moved into a new building",
        "three two one and the price is open",
        "I burned my rice last night so we ordered pizza",
        "returns are free for thirty days",
        "the light is a bit too bright on this side",
        "he plays football every Sunday with his school friends",
        "wait for the next round if you missed this one",
        "I am learning to drive a car and it is terrifying",
        "there was a huge spider in the bathroom",
        "follow the room so that you do not miss anything",
        "we grew up near the sea with a small boat",
        "write the number one if you want another round",
        "tomorrow is my birthday and there will be cake",
        "the music is too loud can you turn it down",
        "my phone has only nine percent left",
        "next week we are on holiday in the mountains",
        "the winner of the last draw has not answered yet",
    ),
    "val": (
        "good evening and welcome back",
        "share this with your friends please",
        "I forgot my umbrella and got soaked",
        "all parcels leave the warehouse on Monday",
        "can you see me well in the back",
        "the neighbours are building a house again",
        "only ten seconds to go",
        "my son lost his first tooth",
        "we answer every message after the show",
        "it smells of fresh bread in here",
        "do not forget your coupon",
        "the bus was full of tourists with big hats",
    ),
    "test": (
        "hi and good to see so many of you tonight",
        "press follow and you get a discount",
        "the cat walked over my keyboard",
        "delivery takes about a week to the north",
        "my voice is gone from all this talking",
        "we had dinner by candlelight since the power was out",
        "the flash sale ends in a minute",
        "she runs a marathon every autumn",
        "the customer service is there from nine to five",
        "I watched a film about whales and cried",
        "your comments go by so fast",
        "the kids painted the garden wall blue",
    ),
}


def transcript(rng: np.random.Generator, names: Sequence[str], talk: Talk = "named", split: Split = "train") -> str:
    """Returns a few sentences, as a recogniser writes them down.

    Args:
        rng: Source of the choice.
        names: Names of the product; for `other`, of the products that are named instead; else unused.
        talk: `named` says the product's name, or in one of four cases only its last word; `other` names something
            that is not shown; `chat` names nothing. Where there is no name to say, everything is chat.
        split: Whose sentences are said.
    """
    chat, naming = CHAT[split], NAMING[split]
    said = [chat[int(i)] for i in rng.choice(len(chat), int(rng.integers(1, 4)), replace=False)]
    if talk != "chat" and names:
        name = names[int(rng.integers(len(names)))]
        if talk == "named" and rng.random() < 0.25:
            name = name.split()[-1] if name.split() else name
        if name:
            said.insert(int(rng.integers(len(said) + 1)), naming[int(rng.integers(len(naming)))].format(name=name))
    return ". ".join(said)
