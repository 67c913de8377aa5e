"""Evaluations that give no numbers though every training loss is one."""

from dataclasses import replace

import pytest
from tints import PLAIN, tints
from torch import nn

from masterkey.benchmarks.errors import DivergedError
from masterkey.benchmarks.training import train


class Exploding(nn.Module):
    """A classifier that gives no numbers where it is judged, from some evaluation on; as batch norms may."""

    def __init__(self, broken):
        super().__init__()
        self.head = nn.Linear(3, 3)
        self.broken, self.epoch = broken, -1

    def train(self, mode=True):
        self.epoch += mode
        return super().train(mode)

    def forward(self, images):
        logits = self.head(images.mean((2, 3)))
        return logits if self.training or self.epoch not in self.broken else logits * float("nan")


def test_an_evaluation_without_numbers_in_between_is_no_figure_and_at_the_end_a_divergence():
    curve = train(Exploding({1}), tints(), replace(PLAIN, epochs=3), seed=0).curve
    assert [epoch.loss is None for epoch in curve] == [False, True, False]
    with pytest.raises(DivergedError, match="the loss is nan on the pictures judged on"):
        train(Exploding({2}), tints(), replace(PLAIN, epochs=3), seed=0)
