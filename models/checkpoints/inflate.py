"""Inflate an image ViT to a video model, to be trained: ViViT, arXiv 2103.15691, section 3.4."""

from dataclasses import asdict, replace

import torch

from tubelet.models.checkpoints.foreign_checkpoint import ForeignCheckpoint
from tubelet.models.errors import CannotImport
from tubelet.models.families.factorised import Factorised, FactorisedDims, central_frame_
from tubelet.models.families.layers import patch_sides
from tubelet.models.families.vit import ViTDims
from tubelet.models.spec import Preprocessing, Sampling

TEMPORAL_DEPTH = 4  # blocks of the temporal encoder, as in the paper
_SEED = 0


def inflate(foreign: ForeignCheckpoint, frames: int, tubelet: int) -> ForeignCheckpoint:
    """Turn an image ViT into a factorised encoder with windows of ``frames`` and units of ``tubelet`` frames.

    At first each unit sees what the image model sees of its middle frame. The temporal encoder is random,
    from a fixed seed, and so is the head of a backbone without one: the model must be trained before use.

    Raises:
        CannotImport: the model is not an image ViT or has a head of two layers, ``tubelet`` does not divide
            ``frames``, or a backbone comes without labels.
    """
    dims = foreign.dims
    if not isinstance(dims, ViTDims) or dims.representation_dim is not None:
        raise CannotImport(f"only an image ViT with a linear head can be inflated, not {type(dims).__name__}")
    if frames % tubelet:
        raise CannotImport(f"tubelets of {tubelet} frames do not divide a window of {frames}")
    inflated = FactorisedDims(
        tubelet_size=(tubelet, *patch_sides(dims.patch_size)),
        units_per_window=frames // tubelet,
        spatial_depth=dims.depth,
        temporal_depth=TEMPORAL_DEPTH,
        **asdict(dims.block),
    )
    if "head.weight" not in foreign.state and not foreign.labels:
        raise CannotImport("the image ViT has no head; name the labels of the new one with --labels")
    state, untrained = _state(foreign, inflated, foreign.preprocessing)
    was = foreign.sampling
    sampling = Sampling(
        tubelet, frames // tubelet, was.window_s, was.stride_s, was.min_window_s, was.max_window_s
    )
    note = f"{foreign.description} Inflated to {frames} frames; untrained: {', '.join(untrained)}."
    return replace(
        foreign, dims=inflated, sampling=sampling, state=state, description=note, untrained=untrained
    )


def _state(
    foreign: ForeignCheckpoint, dims: FactorisedDims, preprocessing: Preprocessing
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return the parameters of the inflated model, and its untrained parts, such as "temporal"."""
    head = foreign.state.get("head.weight")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = Factorised(dims, preprocessing, len(foreign.labels) if head is None else len(head))
    central_frame_(model.patch_embed.proj, foreign.state["patch_embed.proj.weight"])
    own = model.state_dict()
    # A backbone's pooler is replaced by the new head.
    dropped = (
        "patch_embed.proj.weight",
        *(("pooler.dense.weight", "pooler.dense.bias") if head is None else ()),
    )
    kept = {name: value for name, value in foreign.state.items() if name not in dropped}
    untrained = (name.partition(".")[0] for name in own if name not in foreign.state)
    return own | kept, tuple(dict.fromkeys(untrained))
