"""The words that all of `cope` shares: the three domains, and the sides of the split. No torch here."""

from typing import Literal

Domain = Literal["page", "video", "live"]
DOMAINS: tuple[Domain, ...] = ("page", "video", "live")

Split = Literal["train", "val", "test"]
