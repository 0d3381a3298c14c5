"""The learning rate and the weight decay of each parameter: early layers change less than late ones.

Layer-wise decay of the learning rate: Clark et al., "ELECTRA", arXiv 2003.10555; Bao et al., "BEiT",
arXiv 2106.08254.
"""

from typing import Any

from torch import nn

UNDECAYED = ("cls_token", "pos_embed")
"""Ends of the names of parameters that weight decay leaves out."""


def parameter_groups(model: nn.Module, first_share: float) -> list[dict[str, Any]]:
    """Return the groups of an optimiser: each layer's matrices, which decay, and its other parameters.

    The learning rate of a group is to be multiplied by its ``share``: ``first_share`` in the first layer, 1
    in the last one, and geometric between them. Parameters that need no gradient are left out.
    """
    named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    layers = list(dict.fromkeys(_layer_of(name) for name, _ in named))
    if first_share == 1:
        return _groups(named, 1.0)
    groups = []
    for number, layer in enumerate(layers):
        share = first_share ** ((len(layers) - 1 - number) / max(1, len(layers) - 1))
        groups += _groups([(name, each) for name, each in named if _layer_of(name) == layer], share)
    return groups


def _groups(named: list[tuple[str, nn.Parameter]], share: float) -> list[dict[str, Any]]:
    """Return the group of matrices and the group of biases, norms, class tokens and position embeddings."""
    decayed = [each for name, each in named if each.ndim > 1 and not name.endswith(UNDECAYED)]
    others = [each for name, each in named if each.ndim <= 1 or name.endswith(UNDECAYED)]
    return [
        {"params": decayed, "share": share},
        {"params": others, "share": share, "weight_decay": 0.0},
    ]


def _layer_of(name: str) -> str:
    """Return the layer of a parameter: the path up to the number of a block, else that of the module.

    Models register their layers from input to output, so the first parameters are those of the first layer.
    """
    parts = name.split(".")
    # The first number is that of the model in the list that the trainer holds.
    number = next((index for index, part in enumerate(parts) if index and part.isdigit()), None)
    return ".".join(parts[:-1] if number is None else parts[: number + 1])
