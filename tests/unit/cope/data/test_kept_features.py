"""What frozen towers see and read is kept on disk whole or not at all."""

import errno
import os

import numpy as np
import pytest
import torch

from cope.config import ModelConfig, TrainConfig
from cope.errors import UserError
from cope.training import features, texts
from cope.training.features import Features, Work, rendered
from cope.training.texts import Named

pytestmark = pytest.mark.slow


class Reader:
    """A text tower of one number per letter."""

    width = 3

    def tokenize(self, text, max_tokens):
        return [ord(letter) for letter in text[:max_tokens]]

    def forward_tokens(self, tokens, mask):
        return (tokens * mask).sum(dim=1, keepdim=True).expand(-1, 3).float()


class Killed:
    """Ends the process that unpickles it, as the kernel does when memory runs out."""

    def __reduce__(self):
        return os._exit, (1,)


def seen(count=1):
    rows, numbers = np.ones((count, 2), np.float16), np.zeros(count, np.int64)
    return Features(rows, numbers, np.ones(count, np.float32), rows, numbers, rows, numbers, maps=[], boxes=[])


@pytest.fixture
def full_disk(monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    return monkeypatch


def test_a_full_disk_leaves_no_features_and_is_one_line(objects, tmp_path, full_disk):
    work, kept = Work(ModelConfig(), objects, "train", 0, 1, 1, 1, 1), tmp_path / "kept"
    full_disk.setattr(features, "_rendered", lambda work, report: [seen(), seen(2)])
    with pytest.raises(UserError, match=r"cannot write .*train-.*\.pt: no space left on device"):
        rendered(work, kept, lambda done, of: None)
    assert not list(kept.iterdir())
    full_disk.undo()
    full_disk.setattr(features, "_rendered", lambda work, report: [seen(), seen(2)])
    for _ in range(2):  # made, and found again
        _, found = rendered(work, kept, lambda done, of: None)
        assert found.live.shape == (3, 2)


def test_a_full_disk_leaves_no_texts_and_is_one_line(objects, tmp_path, full_disk):
    products = [Named(f"p{i}", f"red bag {i}") for i in range(2)]
    kept = tmp_path / "kept"
    with pytest.raises(UserError, match=r"cannot write .*texts-.*\.pt: no space left on device"):
        texts.kept([Named(p.id, p.name) for p in products], Reader(), TrainConfig(), kept)
    assert not list(kept.iterdir())
    full_disk.undo()
    first, again = (texts.kept(products, Reader(), TrainConfig(), kept) for _ in range(2))
    assert torch.equal(first.titles, again.titles)


@pytest.mark.parametrize("spoilt", [b"", b"PK but no archive"])
def test_damaged_features_and_texts_are_named_with_the_mend(objects, tmp_path, monkeypatch, spoilt):
    work, kept = Work(ModelConfig(), objects, "train", 0, 1, 1, 1, 1), tmp_path / "kept"
    monkeypatch.setattr(features, "_rendered", lambda work, report: [seen()])
    products, _ = rendered(work, kept, lambda done, of: None)
    texts.kept([Named(p.id, p.name) for p in products], Reader(), TrainConfig(), kept)
    for file in kept.iterdir():
        file.write_bytes(spoilt)
    with pytest.raises(UserError, match=r"train-.*\.pt is damaged .* remove it and start the same command again"):
        rendered(work, kept, lambda done, of: None)
    with pytest.raises(UserError, match=r"texts-.*\.pt is damaged"):
        texts.kept([Named(p.id, p.name) for p in products], Reader(), TrainConfig(), kept)


def test_a_renderer_that_is_killed_is_one_line():
    with pytest.raises(UserError, match=r"rendering processes died, most often for lack of memory; free some memory"):
        features._rendered(Killed(), lambda done, of: None)
