"""The model that training starts from: another one's weights, a temporal stage that averages, a linear probe.

Starting from a linear probe changes the features less than starting from a random head: Kumar et al.,
arXiv 2202.10054. N units of all windows, S units in a window, D width of a unit's embedding, K classes.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from tubelet.models.errors import CannotTrain
from tubelet.models.families.factorised import FactorisedDims
from tubelet.models.families.framewise import Framewise, FramewiseDims, TemporalDims
from tubelet.models.families.layers import Encoder, EncoderBlock, TubeletEmbed
from tubelet.models.families.registry import Dims, build_model, build_on_meta
from tubelet.models.families.torchvision import TorchvisionDims
from tubelet.models.families.vit import ViTDims
from tubelet.models.spec import Preprocessing
from tubelet.models.training.losses import frequencies
from tubelet.models.training.probe_model import probe_dims
from tubelet.models.video_model import VideoModel

_WIDTH, _DEPTH, _HEADS, _MLP = 192, 2, 3, 384  # of a new temporal transformer
_ADAPTER_SHARE = 4  # an adapter is as much narrower than the embeddings
_STAGE = ("adapter", "temporal", "head")


def temporal_dims(dims: Dims, units_per_window: int) -> Dims:
    """Return the sizes of a model with a temporal transformer on the spatial stage of a model of ``dims``.

    Raises:
        CannotTrain: the model's family has no units that a temporal transformer could read.
    """
    match dims:
        case FactorisedDims():
            return replace(
                dims, pool=None, adapter_dim=dims.adapter_dim or max(1, dims.embed_dim // _ADAPTER_SHARE)
            )
        case FramewiseDims(temporal=TemporalDims()):
            return dims
    try:
        image = probe_dims(dims)["mean"]
    except CannotTrain:
        raise CannotTrain(
            "the level temporal needs an image model, or a model of the family factorised or framewise; the "
            f"sizes of this model are {type(dims).__name__}: use --level full"
        ) from None
    assert isinstance(image, FramewiseDims)
    return replace(image, temporal=TemporalDims(units_per_window, _WIDTH, _DEPTH, _HEADS, _MLP))


def full_dims(dims: Dims, units_per_window: int) -> Dims:
    """Return the sizes of a model to train all of: an image model gets a temporal transformer."""
    if isinstance(dims, FactorisedDims):
        return replace(dims, pool=None)
    try:
        return temporal_dims(dims, units_per_window)
    except CannotTrain:
        return dims


def build_from(
    dims: Dims, base: Dims, state: Mapping[str, Tensor], preprocessing: Preprocessing, num_classes: int
) -> VideoModel:
    """Build a model of ``dims`` with the weights ``state`` of a model of ``base``, all but its head.

    A temporal transformer or an adapter that the base lacks starts as ``average_`` and the identity.
    """
    model = build_model(dims, preprocessing, num_classes)
    if isinstance(dims, FramewiseDims) and isinstance(base, ViTDims | TorchvisionDims):
        state = {f"image.{name}": value for name, value in state.items()}
    own = model.state_dict()
    heads = _head_parameters(dims, preprocessing)
    kept = {name: value for name, value in state.items() if name in own and name not in heads}
    model.load_state_dict(own | kept)
    if isinstance(model, Framewise) and model.temporal is not None and "temporal.cls_token" not in kept:
        average_(model.temporal)
    return model


def _head_parameters(dims: Dims, preprocessing: Preprocessing) -> set[str]:
    """Return the names of the parameters whose shapes depend on the number of labels."""
    two, three = (
        {name: value.shape for name, value in build_on_meta(dims, preprocessing, count).state_dict().items()}
        for count in (2, 3)
    )
    return {name for name, shape in two.items() if three[name] != shape}


@torch.no_grad()
def average_(encoder: Encoder) -> None:
    """Let an encoder return the mean of its normalised tokens, but for a norm, until it is trained.

    Every token gets the same attention in the first block, since its keys are zero; the other blocks add
    nothing.
    """
    nn.init.zeros_(encoder.cls_token)
    nn.init.zeros_(encoder.pos_embed)
    for layer in encoder.modules():
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    for number, block in enumerate(encoder.blocks):
        assert isinstance(block, EncoderBlock)
        nn.init.zeros_(block.mlp.fc2.weight)
        if number:
            nn.init.zeros_(block.attn.proj.weight)
            continue
        _, keys, values = block.attn.qkv.weight.chunk(3)
        nn.init.zeros_(keys)
        nn.init.eye_(values)
        nn.init.eye_(block.attn.proj.weight)


@torch.no_grad()
def set_principal_(adapter: nn.Linear, embeddings: Tensor) -> None:
    """Let an adapter project on the principal components of ``embeddings``, (N, D), in units of their scale.

    Components beyond the width of the embeddings are zero.
    """
    values = embeddings.double()
    mean = values.mean(dim=0)
    centred = values - mean
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    kept = vectors.flip(1)[:, : adapter.out_features]
    scale = (centred @ kept).std().clamp(min=1e-6)
    adapter.weight.zero_()
    adapter.bias.zero_()
    weight = kept.T / scale
    adapter.weight[: len(weight)] = weight
    adapter.bias[: len(weight)] = -weight @ mean


def trains_in_bf16(model: nn.Module) -> bool:
    """Return whether a CPU computes the gradients of ``model`` in bfloat16.

    oneDNN's gradients of 3D convolutions over small maps have random values of 1e18 and more there; tubelets
    are embedded by matrix products.
    """
    embeds = {module.proj for module in model.modules() if isinstance(module, TubeletEmbed)}
    return all(module in embeds for module in model.modules() if isinstance(module, nn.Conv3d))


class TemporalStage(nn.Module):
    """The adapter, the temporal stage and the head of a model, without its spatial stage."""

    def __init__(self, model: VideoModel) -> None:
        super().__init__()
        self.stage = copy.deepcopy(model)
        for name, _ in list(self.stage.named_children()):
            if name not in _STAGE:
                setattr(self.stage, name, nn.Identity())

    def forward(self, windows: Tensor) -> Tensor:
        """Classify windows of embeddings: (B, S, D) -> (B, K)."""
        return self.stage.classify(windows)

    def give_to_(self, model: VideoModel) -> None:
        """Put the trained weights into the model that the stage was taken from."""
        model.load_state_dict(model.state_dict() | self.stage.state_dict())


@torch.no_grad()
def head_parameters(model: VideoModel) -> tuple[Tensor, Tensor] | None:
    """Return the weight and the bias of a head of one linear layer; None for other heads."""
    head = getattr(
        model.head, "__self__", model.head
    )  # a layer of a library is deferred: its method computes
    weight, bias = getattr(head, "weight", None), getattr(head, "bias", None)
    if isinstance(weight, Tensor) and isinstance(bias, Tensor):
        return weight, bias
    return None


@torch.no_grad()
def set_frequencies_(model: VideoModel, labels: Tensor) -> None:
    """Let a random model of independent labels start with scores as frequent as ``labels``, (N, K), are.

    Otherwise its first epochs would only learn that most labels are absent (arXiv 1708.02002, section 3.3).
    Heads that are no linear layer stay random.
    """
    if (parameters := head_parameters(model)) is not None:
        parameters[1].copy_(frequencies(labels).logit())
