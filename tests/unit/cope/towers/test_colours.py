"""Colours of a picture as a histogram."""

import pytest
import torch

from cope.towers.colours import COLOURS, colours

RED, GREEN, GREY = (200.0, 30.0, 30.0), (30.0, 160.0, 60.0), (120.0, 120.0, 120.0)


def picture(ground, thing=None, side=64):
    pixels = torch.tensor(ground).view(3, 1, 1).repeat(1, side, side)
    if thing is not None:
        pixels[:, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = torch.tensor(thing).view(3, 1, 1)
    return pixels


def alike(one, other):
    first, second = colours(torch.stack([one, other]))
    return float(first @ second)


def test_rows_have_length_one_whatever_the_size():
    for side in (16, 33, 160):
        found = colours(torch.rand(2, 3, side, side + 16) * 255)
        assert found.shape == (2, COLOURS)
        assert found.square().sum(dim=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)


def test_pictures_of_one_colour_are_alike_and_of_two_are_not():
    assert alike(picture(RED), picture(RED)) == pytest.approx(1.0, abs=1e-5)
    assert alike(picture(RED), picture(GREEN)) < 0.05


def test_light_changes_little_and_another_dye_much():
    dimmed = tuple(0.8 * value for value in RED)
    assert alike(picture(RED), picture(dimmed)) > 0.7 > 0.3 > alike(picture(RED), picture((200.0, 200.0, 30.0)))


def test_what_is_in_the_middle_counts_more_than_what_is_around():
    shown = picture(GREY, RED)
    assert alike(shown, picture(RED)) > alike(shown, picture(GREY))
