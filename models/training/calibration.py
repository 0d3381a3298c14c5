"""Temperature scaling: one number that makes a model's scores as large as its accuracy.

Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599, section 4.2. N windows, K classes.
"""

import math

import torch.nn.functional as F
from torch import Tensor

LIMITS = (0.01, 100.0)
"""The smallest and the largest temperature."""
_TRIED = 9  # temperatures in each round of the search
_ROUNDS = 8  # each searches between the neighbours of the best temperature so far


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature T within ``LIMITS`` at which ``logits / T`` have the smallest cross entropy.

    (N, K), and labels (N,) int64, or (N, K) of 0 and 1 for independent labels -> a number. The logits must be
    of data that the model was not trained on. Of a label, 1 in N + 2 is taken as wrong (the rule of
    succession): few windows that are all right prove no certainty.
    """
    logits, doubt = logits.double(), 1 / (len(labels) + 2)
    if labels.ndim == 1:
        targets = (1 - doubt) * F.one_hot(labels, logits.shape[1]).double() + doubt / logits.shape[1]
        loss = F.cross_entropy
    else:
        targets = (1 - doubt) * labels.double() + doubt / 2
        loss = F.binary_cross_entropy_with_logits
    low, high = (math.log(limit) for limit in LIMITS)
    best = 0.0
    # The loss is convex in 1 / T, so it has one minimum in log T, too.
    for _ in range(_ROUNDS):
        step = (high - low) / (_TRIED - 1)
        tried = [low + step * number for number in range(_TRIED)]
        losses = [loss(logits * math.exp(-each), targets).item() for each in tried]
        best = tried[losses.index(min(losses))]
        low, high = max(low, best - step), min(high, best + step)
    return math.exp(best)
