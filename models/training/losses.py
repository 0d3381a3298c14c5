"""Training losses: labels, and the optical flow that the simulation knows.

B windows, S units in a window, t frames in a unit, T = S t, P tokens, D embedding width, K classes.
The flow heads give every token a target, which one label a window cannot; they are dropped after training.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from tubelet.models.training.probes import class_weights

FLOW_UNIT = 1 / 128
"""Flow in sides of the picture (half a pixel of 64); smaller flows count linearly, larger by logarithm."""
LABEL_SMOOTHING = 0.03
FLOW_WEIGHT = 2.0
"""Weight of the flow loss beside the label loss."""


class FlowHeads(nn.Module):
    """Predict the flow between the frames of a unit from its tokens; for training only."""

    def __init__(self, embed_dim: int, frames_per_unit: int, rows: int, columns: int) -> None:
        super().__init__()
        self.frames_per_unit = frames_per_unit
        self.of_unit = nn.Linear(embed_dim, 4 * (frames_per_unit - 1))
        self.of_token = nn.Linear(embed_dim, 2 * (frames_per_unit - 1))
        self.x: Tensor
        self.y: Tensor
        y, x = torch.meshgrid(_centres(rows), _centres(columns), indexing="ij")
        self.register_buffer("x", x.flatten(), persistent=False)
        self.register_buffer("y", y.flatten(), persistent=False)

    def loss(self, tokens: Tensor, flow: Tensor) -> Tensor:
        """Return the mean error of unit and token flows: (B S, 1 + P, D), (B, T - 1, 4) -> a scalar."""
        t = self.frames_per_unit
        # The step from a unit's last frame to the next unit's first belongs to no unit: pad, cut, drop it.
        steps = rearrange(F.pad(flow, (0, 0, 0, 1)), "b (s t) f -> (b s) t f", t=t)[:, :-1]
        of_unit = rearrange(self.of_unit(tokens[:, 0]), "n (i f) -> n i f", f=4)
        of_token = rearrange(self.of_token(tokens[:, 1:]), "n p (i f) -> n p i f", f=2)
        local = flow_at(steps[:, None], self.x[:, None], self.y[:, None])
        return F.smooth_l1_loss(of_unit, compress(steps)) + F.smooth_l1_loss(of_token, compress(local))


def flow_at(flow: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the content's shift, in sides, at points -0.5..0.5: (..., 4), (...), (...) -> (..., 2)."""
    shift_x, shift_y, growth, turn = flow.unbind(-1)
    return torch.stack((shift_x + growth * x - turn * y, shift_y + growth * y + turn * x), dim=-1)


def compress(flow: Tensor) -> Tensor:
    """Return sign * log(1 + |flow| / FLOW_UNIT), so that fast moves do not dominate slow ones."""
    return flow.sign() * torch.log1p(flow.abs() / FLOW_UNIT)


def label_loss(logits: Tensor, labels: Tensor, smoothing: float = LABEL_SMOOTHING) -> Tensor:
    """Return the cross entropy: (B, K), and the labels (B,), or the weight of each label (B, K) -> a scalar.

    Labels are smoothed by ``smoothing``; weights are taken as they are. Weights of independent labels are
    those of having each one and of not having it, (B, K, 2); the loss is the mean of the binary cross
    entropies.
    """
    if labels.ndim == 3:
        has, lacks = labels.unbind(-1)
        return -(has * F.logsigmoid(logits) + lacks * F.logsigmoid(-logits)).mean()
    smoothing = 0.0 if labels.is_floating_point() else smoothing
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def label_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of windows whose class has the highest logit: (B, K), (B,) -> a scalar.

    Of independent labels, (B, K), it is F1 at a score of 0.5 over all of them; 1 if none is there or found.
    """
    if labels.ndim == 1:
        return (logits.argmax(dim=1) == labels).float().mean()
    said, is_true = logits >= 0, labels > 0
    total = said.sum() + is_true.sum()
    return 2 * (said & is_true).sum() / total if total else torch.ones(())


def loss_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return the weight of each label in the loss, so that rare ones count as much: (N,), or (N, K) -> (K,).

    Classes together weigh the same. The loss of an independent label is divided by that of always saying how
    frequent it is, and multiplied by ln 2, that of a label which half of the windows have.
    """
    if labels.ndim == 1:
        return class_weights(labels, num_classes)
    shares = frequencies(labels)
    entropies = F.binary_cross_entropy(shares, shares, reduction="none")
    return math.log(2) / entropies


def frequencies(labels: Tensor) -> Tensor:
    """Return how frequent each independent label is, by the rule of succession: (N, K) -> (K,) in (0, 1)."""
    return (labels.double().sum(dim=0) + 1) / (len(labels) + 2)


def _centres(count: int) -> Tensor:
    """Return the centres of ``count`` equal parts of -0.5..0.5."""
    return (torch.arange(count) + 0.5) / count - 0.5
