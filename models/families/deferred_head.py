"""The last layer of another library's network, computed apart from it: first features, later logits.

N units in a batch, D embedding width, K classes.
"""

from collections.abc import Callable
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn


class DeferredLayer(nn.Module):
    """A linear layer, or a convolution of one pixel, that returns its input; ``compute`` applies its weights.

    In the place of the original layer, it makes a network return features, and parameters keep their names.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.weight = cast(nn.Parameter, layer.weight)
        self.bias = cast(nn.Parameter | None, layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        return features

    def compute(self, features: Tensor) -> Tensor:
        """Apply the layer's weights: (..., D) -> (..., K)."""
        return F.linear(features, self.weight.flatten(1), self.bias)


def defer_layer(net: nn.Module, name: str) -> Callable[[Tensor], Tensor]:
    """Make ``net`` return the input of its last layer ``name``, and return the function of that layer.

    The layer may be followed by means over positions, which come before it from now on.
    """
    layer = DeferredLayer(net.get_submodule(name))
    net.set_submodule(name, layer)
    return layer.compute


def drop_layer(net: nn.Module, name: str) -> int:
    """Remove a deferred layer ``name`` from ``net``, and return the width of its input, D."""
    layer = cast(DeferredLayer, net.get_submodule(name))
    net.set_submodule(name, nn.Identity())
    return layer.weight.flatten(1).shape[1]
