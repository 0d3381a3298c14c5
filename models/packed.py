"""Linear layers for inference on the CPU: weights laid out once as oneDNN wants them, activations fused.

N sequences, P tokens. oneDNN: https://uxlfoundation.github.io/oneDNN/dev_guide_matmul.html
"""

from typing import Any

import torch
from torch import Tensor, nn

from models.divided import DividedBlock
from models.layers import Attention, Mlp

_ops: Any = torch.ops.mkldnn


class PackedLinear(nn.Module):
    """A linear layer, and an activation behind it: (..., in) -> (..., out). It does not train."""

    def __init__(self, linear: nn.Linear, post: str = "none", algorithm: str = "") -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        # Not buffers: their layout is this processor's, nothing to save or to move.
        self.packed = _ops._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.post, self.algorithm = post, algorithm

    def forward(self, x: Tensor) -> Tensor:
        return _ops._linear_pointwise(x, self.packed, self.bias, self.post, [], self.algorithm)


class PackedMlp(nn.Module):
    """(N, P, D) -> (N, P, D), the activation computed while the hidden layer is written."""

    def __init__(self, mlp: Mlp) -> None:
        super().__init__()
        self.fc1 = PackedLinear(mlp.fc1, "gelu", "tanh" if mlp.act == "gelu_tanh" else "none")
        self.fc2 = PackedLinear(mlp.fc2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x))


@torch.no_grad()
def pack(model: nn.Module) -> None:
    """Replace the linear layers of a model's transformer blocks, in place, where torch has oneDNN."""
    if not torch.backends.mkldnn.is_available():
        return
    for part in model.modules():
        for name, child in list(part.named_children()):
            if isinstance(child, Mlp):
                setattr(part, name, PackedMlp(child))
            elif isinstance(child, nn.Linear) and isinstance(part, Attention | DividedBlock):
                setattr(part, name, PackedLinear(child))
