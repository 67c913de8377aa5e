"""An autoencoder whose code is one number between 0 and 1: filters along a line (arXiv:2401.14469, 2509.11711)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..shapes import shapes_of

HIDDEN = 128
STEPS = 3000
BATCH = 256
RATE = 5e-3
LOSS_EVERY = 50  # steps that one point of the loss curve averages


@dataclass(frozen=True)
class CodeLine:
    """A trained autoencoder; ``losses`` is the mean squared error |f - decoded|^2 over every 50 training steps."""

    encoder: nn.Module
    decoder: nn.Module
    losses: tuple[float, ...]

    @torch.no_grad()
    def encode(self, unit: Tensor) -> Tensor:
        """Codes (n,) of shapes (n, d)."""
        return torch.cat([self.encoder(part)[:, 0] for part in unit.float().split(8192)])

    @torch.no_grad()
    def reconstruct(self, codes: Tensor) -> Tensor:
        """What the decoder gives for codes (n,), as it is: (n, d)."""
        return torch.cat([self.decoder(part[:, None]) for part in codes.float().split(8192)])

    def decode(self, codes: Tensor) -> Tensor:
        """Shapes (n, d) for codes (n,): decoded, centred, at unit norm."""
        return shapes_of(self.reconstruct(codes)).unit


@torch.enable_grad()
def train(unit: Tensor, seed: int, steps: int = STEPS) -> CodeLine:
    """Train on shapes (n, d) with Adam and a one-cycle rate; the same seed gives the same line on one machine."""
    size = unit.shape[1]
    unit = unit.float()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed: that seeds every GPU, too, for good
        encoder = _perceptron(size, 1, nn.Sigmoid())
        decoder = _perceptron(1, size)
        batches = torch.randint(len(unit), (steps, BATCH))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    losses = torch.empty(steps)
    for step, rows in enumerate(batches):
        batch = unit[rows]
        loss = (decoder(encoder(batch)) - batch).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses[step] = loss.detach()
    curve = tuple(float(part.mean()) for part in losses.split(LOSS_EVERY))
    return CodeLine(encoder.eval(), decoder.eval(), curve)


def _perceptron(inputs: int, outputs: int, *last: nn.Module) -> nn.Sequential:
    hidden = (nn.Linear(inputs, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU())
    return nn.Sequential(*hidden, nn.Linear(HIDDEN, outputs), *last)
