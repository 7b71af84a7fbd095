"""Guessing hidden words: what is hidden, and the loss against plain loops in float64."""

import math

import pytest
import torch
from torch import nn

from cope.training.masked_language import hide, masked_language_loss

pytestmark = pytest.mark.slow

CLS, SEP, PAD, MASK = 0, 1, 2, 3


class Tower(nn.Module):
    """Embeddings that know the mean of their text."""

    mask_token = MASK
    vocabulary = 40
    special_tokens = frozenset({CLS, SEP, PAD, MASK})

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.token_embedding = nn.Parameter(torch.randn(40, 6, generator=generator, dtype=torch.float64))

    def token_states(self, tokens, mask):
        x = self.token_embedding[tokens] * mask.unsqueeze(2)
        return x + x.sum(dim=1, keepdim=True) / mask.sum(dim=1).view(-1, 1, 1)


def texts(count=8, length=12, seed=0):
    """Texts of 3 tokens to `length`, between CLS and SEP, padded."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, 40, (count, length), generator=generator)
    lengths = torch.randint(3, length + 1, (count, 1), generator=generator)
    place = torch.arange(length)
    tokens[:, 0] = CLS
    tokens = torch.where(place == lengths - 1, SEP, tokens)
    return torch.where(place < lengths, tokens, PAD), place < lengths


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_seventh_of_the_words_is_to_be_guessed_and_most_of_it_is_masked():
    tokens, mask = texts(4000, 20)
    hidden, chosen = hide(Tower(), tokens, mask, seeded())
    words = mask & (tokens > MASK)
    assert not bool((chosen & ~words).any())
    assert torch.equal(hidden[~chosen], tokens[~chosen])
    assert chosen.sum() / words.sum() == pytest.approx(0.15, abs=0.01)
    masked, same = hidden[chosen] == MASK, hidden[chosen] == tokens[chosen]
    # A random token is the old one, or the mask itself, once in 40 times each.
    assert masked.float().mean() == pytest.approx(0.8 + 0.1 / 40, abs=0.015)
    assert same.float().mean() == pytest.approx(0.1 + 0.1 / 40, abs=0.015)
    others = hidden[chosen & (hidden != MASK) & (hidden != tokens)]
    assert set(others.tolist()) == set(range(40)) - {MASK}


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_equals_the_loop(seed):
    tower = Tower()
    tokens, mask = texts(seed=seed)
    hidden, chosen = hide(tower, tokens, mask, seeded(seed))
    states, embedding = tower.token_states(hidden, mask).tolist(), tower.token_embedding.tolist()
    losses = []
    for b, i in chosen.nonzero().tolist():
        logits = [sum(x * y for x, y in zip(states[b][i], row, strict=True)) for row in embedding]
        losses.append(math.log(sum(math.exp(v) for v in logits)) - logits[tokens[b, i]])
    found = masked_language_loss(tower, tokens, mask, seeded(seed)).item()
    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-12)


def test_the_loss_has_the_right_gradients():
    tower = Tower()
    tokens, mask = texts(3, 6)

    def loss(embedding):
        return torch.func.functional_call(Loss(tower), {"tower.token_embedding": embedding}, (tokens, mask))

    assert torch.autograd.gradcheck(loss, tower.token_embedding)


class Loss(nn.Module):
    def __init__(self, tower):
        super().__init__()
        self.tower = tower

    def forward(self, tokens, mask):
        return masked_language_loss(self.tower, tokens, mask, seeded())


def test_the_same_generator_state_gives_the_same_loss():
    tower = Tower()
    first, again, other = (masked_language_loss(tower, *texts(), seeded(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_what_stands_in_the_padding_does_not_matter():
    tower = Tower()
    tokens, mask = texts()
    loss = masked_language_loss(tower, tokens, mask, seeded())
    assert masked_language_loss(tower, torch.where(mask, tokens, 17), mask, seeded()) == loss


def test_texts_without_words_cost_nothing():
    tower = Tower()
    loss = masked_language_loss(tower, torch.tensor([[CLS, SEP]]), torch.ones(1, 2, dtype=torch.bool), seeded())
    loss.backward()
    assert loss.item() == 0.0
    assert tower.token_embedding.grad.abs().sum() == 0


def test_hidden_words_are_learned_from_their_neighbours():
    tower = Tower()
    # Each text is one word, said again and again.
    tokens, mask = torch.arange(4, 20).view(-1, 1).expand(-1, 10), torch.ones(16, 10, dtype=torch.bool)
    optimiser = torch.optim.Adam(tower.parameters(), lr=0.05)
    losses = []
    for step in range(60):
        loss = masked_language_loss(tower, tokens, mask, seeded(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
