"""The start of small models from random weights: transformers' weights, statistics of batch norms."""

from typing import Any

import torch
from torch import Generator, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tubelet.models.families.channel_stack import ChannelStack
from tubelet.models.families.divided import Divided
from tubelet.models.families.factorised import Factorised
from tubelet.models.families.framewise import Framewise
from tubelet.models.families.joint import Joint
from tubelet.models.families.layers import TubeletEmbed
from tubelet.models.families.vit import ViT
from tubelet.models.training.init import STRENGTH, drifting_gratings_, sine_positions_
from tubelet.models.video_model import VideoModel


@torch.no_grad()
def initialise_small_(model: VideoModel, generator: Generator) -> None:
    """Initialise a small transformer of tubelet's; kernels of several frames are drifting gratings.

    A deviation of 0.02, which suits a width of 768, is so small for 64 that training would stand still. CNNs
    and models of other libraries keep their initialisation.
    """
    if not isinstance(model, ViT | Factorised | ChannelStack | Joint | Divided | Framewise):
        return
    for name, parameter in model.named_parameters():
        if name.endswith("cls_token"):
            nn.init.normal_(parameter, std=STRENGTH)
        elif parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter)
    if isinstance(model, Framewise):
        if isinstance(model.image, ViT):
            initialise_small_(model.image, generator)
        if model.temporal is not None:
            sine_positions_(model.temporal, 1, model.temporal.pos_embed.shape[1] - 1)
        return
    embed = model.patch_embed
    if isinstance(embed, TubeletEmbed):
        frames, p, q = embed.tubelet_size
    else:
        frames, (p, q) = embed.proj.weight.shape[1] // 3, embed.patch_size  # frames are stacked as channels
    rows, columns = model.preprocessing.height // p, model.preprocessing.width // q
    if not isinstance(model, ViT):
        drifting_gratings_(embed.proj, frames, generator)
    if isinstance(model, ViT | Factorised | ChannelStack):
        sine_positions_(model.spatial, rows, columns)
    if isinstance(model, Factorised):
        sine_positions_(model.temporal, 1, model.temporal.pos_embed.shape[1] - 1)


def average_first_statistics_(model: nn.Module) -> None:
    """Let batch norms average their first batches equally, until a moving average has as many.

    A moving average alone would hold on to the mean of 0 and the variance of 1 that it started with: for the
    first dozens of steps, the model would answer with statistics that none of its layers has.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.momentum is not None:
            module.register_forward_pre_hook(_FirstAverage(module.momentum))


class _FirstAverage:
    """A hook that sets the ``momentum`` of a batch norm by the batches that it has seen."""

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum

    def __call__(self, module: nn.Module, _: tuple[Any, ...]) -> None:
        assert isinstance(module, _BatchNorm)
        if module.training and module.num_batches_tracked is not None:
            module.momentum = max(self.momentum, 1 / (1 + int(module.num_batches_tracked)))
