"""The vector of a window, made of the embeddings of its units without a transformer.

B windows, S units in a window, D width of a unit's embedding, V width of a unit's values (D, or 2 D with its
change), E width of a window's vector, Q queries, C cosines of time.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UnitPool = Literal["mean", "mean_and_change", "attentive", "attentive_with_change"]
"""``mean_and_change``: the mean over units, and the mean absolute change from a unit to the next, E = 2 D.

``attentive``: learned queries weigh units by content and time, E = Q V; ``_with_change``: their changes, too.
"""
AttentivePool = Literal["attentive", "attentive_with_change"]

_QUERIES = 2
_COSINES = 4


def pool_units(windows: Tensor, how: Literal["mean", "mean_and_change"]) -> Tensor:
    """Make one vector of the embeddings of a window's units: (B, S, D) -> (B, D) or (B, 2 D)."""
    mean = windows.mean(dim=1)
    if how == "mean":
        return mean
    steps = max(1, windows.shape[1] - 1)  # a single unit does not change
    return torch.cat((mean, windows.diff(dim=1).abs().sum(dim=1) / steps), dim=1)


class MeanPooling(nn.Module):
    """Takes the mean over units, perhaps with their mean change: (B, S, D) -> (B, E)."""

    def __init__(self, how: Literal["mean", "mean_and_change"], embed_dim: int) -> None:
        super().__init__()
        self.how: Literal["mean", "mean_and_change"] = how
        self.width = embed_dim if how == "mean" else 2 * embed_dim

    def forward(self, windows: Tensor) -> Tensor:
        return pool_units(windows, self.how)


class AttentivePooling(nn.Module):
    """Weighs units by learned queries: (B, S, D) -> (B, E), the weighted means of all queries.

    A query gives each unit a score, linear in the unit's values and in cosines of its time within the window;
    weights are the softmax over units. Attention over instances: Ilse et al., arXiv 1802.04712. Zero queries
    weigh all units the same.
    """

    def __init__(self, how: AttentivePool, embed_dim: int) -> None:
        super().__init__()
        self.with_change = how == "attentive_with_change"
        self.values_dim = 2 * embed_dim if self.with_change else embed_dim
        self.width = _QUERIES * self.values_dim
        self.query = nn.Parameter(torch.zeros(_QUERIES, self.values_dim))
        self.time = nn.Parameter(torch.zeros(_QUERIES, _COSINES))

    def forward(self, windows: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool windows, of which the first ``lengths`` (B,) units count; None: all of them."""
        values = self.values(windows, lengths)
        weights = attend(values, self.query, self.time, lengths)
        return (weights.transpose(1, 2) @ values).flatten(1)

    def values(self, windows: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the values of units: (B, S, D) -> (B, S, V).

        The change of a unit is the absolute one from the unit before, scaled so that the mean over units is
        that over changes; the first unit has none.
        """
        if not self.with_change:
            return windows
        counts = windows.shape[1] if lengths is None else lengths[:, None, None].to(windows.dtype)
        scale = counts / max(1, counts - 1) if isinstance(counts, int) else counts / (counts - 1).clamp(min=1)
        change = F.pad(windows.diff(dim=1).abs() * scale, (0, 0, 1, 0))
        return torch.cat((windows, change), dim=2)


def attend(values: Tensor, query: Tensor, time: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the weight of each unit for each query: (B, S, V), (Q, V), (Q, C), (B,) -> (B, S, Q)."""
    places = torch.arange(values.shape[1], device=values.device)
    if lengths is None:
        times = places / max(1, values.shape[1] - 1)
    else:
        times = places / (lengths[:, None] - 1).clamp(min=1)
    cosines = torch.cos(
        times[..., None] * (math.pi * torch.arange(1, time.shape[1] + 1, device=values.device))
    )
    scores = F.linear(values, query) + F.linear(cosines.to(values.dtype), time)
    if lengths is not None:
        scores = scores.masked_fill((places >= lengths[:, None])[..., None], -math.inf)
    return scores.softmax(dim=1)


def unit_pooling(how: UnitPool, embed_dim: int) -> MeanPooling | AttentivePooling:
    """Build what makes the vector of a window."""
    match how:
        case "mean" | "mean_and_change":
            return MeanPooling(how, embed_dim)
        case "attentive" | "attentive_with_change":
            return AttentivePooling(how, embed_dim)
