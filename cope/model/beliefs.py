"""The filter over time: from calibrated odds of windows to beliefs that products are being shown.

A forward filter (Rabiner 1989, "A tutorial on hidden Markov models", III.A) over the states "product i is being shown"
and "none of these". Each hop it

1. forgets: a share `leave` of every product's belief goes back to a pool, from which any product may be entered;
2. weighs every product's belief by the calibrated odds of the newest window, "none" by 1;
3. normalises.
"""

import math
from collections.abc import Mapping

# Share of belief that leaves a product per 2 s of media time. Lower: slower to start, slower to switch. It was chosen
# on rendered streams of products that the model was not trained on. A quarter of these were in no catalogue, but a
# look-alike was.
LEAVE = 0.3
# Belief at which a product counts as shown.
THRESHOLD = 0.5
# Products that may enter per hop, the most likely ones: each takes a share of "none".
ENTRANTS = 8
TYPICAL_HOP_MS = 2_000


def next_beliefs(
    held: Mapping[str, float],
    log_odds: Mapping[str, float],
    elapsed_ms: int = TYPICAL_HOP_MS,
    leave: float = LEAVE,
    entrants: int = ENTRANTS,
) -> dict[str, float]:
    """Returns the belief that each product is being shown after the next window, at six decimals.

    Args:
        held: The beliefs before. A product without odds is dropped.
        log_odds: Log-odds of each candidate that it is being shown at the window's end.
        elapsed_ms: Media time since the window before.
        leave: See `LEAVE`.
        entrants: See `ENTRANTS`.
    """
    leave = 1.0 - (1.0 - leave) ** (elapsed_ms / TYPICAL_HOP_MS)
    pool = 1.0 - (1.0 - leave) * math.fsum(held.values())
    order = sorted(log_odds, key=lambda one: (-log_odds[one], one))
    may_enter = set(order[:entrants])
    weights: dict[str, float] = {}
    for product_id in order:
        odds = math.exp(max(-30.0, min(30.0, log_odds[product_id])))
        stay = (1.0 - leave) * held.get(product_id, 0.0) * odds
        enter = leave * pool * odds if product_id in may_enter else 0.0
        weights[product_id] = stay + enter
    total = (1.0 - leave) * pool + math.fsum(weights.values())
    return {product_id: round(weight / total, 6) for product_id, weight in weights.items()}
