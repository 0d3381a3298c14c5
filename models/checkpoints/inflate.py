"""An image ViT as the start of a video model: ViViT, arXiv 2103.15691, section 3.4."""

from dataclasses import asdict, replace

import torch

from tubelet.models.checkpoints.foreign_checkpoint import CannotImport, Foreign
from tubelet.models.families.factorised import Factorised, FactorisedDims, central_frame_
from tubelet.models.families.layers import patch_sides
from tubelet.models.families.vit import ViTDims
from tubelet.models.spec import Preprocessing, Sampling

TEMPORAL_DEPTH = 4  # of the paper's factorised encoders
_SEED = 0


def inflate(foreign: Foreign, frames: int, tubelet: int) -> Foreign:
    """A factorised encoder that sees what the image model does, in the middle frame of each tubelet.

    The temporal encoder is random (from a fixed seed): the model is to be trained before it is of use.

    A backbone without a head gets a random one, for its labels.

    Raises:
        CannotImport: not an image ViT, a head of two layers, frames that tubelets do not divide, no labels.
    """
    dims = foreign.dims
    if not isinstance(dims, ViTDims) or dims.representation_dim is not None:
        raise CannotImport(f"only an image ViT with a linear head can be inflated, not {type(dims).__name__}")
    if frames % tubelet:
        raise CannotImport(f"tubelets of {tubelet} frames do not divide a window of {frames}")
    sizes = {key: asdict(dims)[key] for key in ("embed_dim", "num_heads", "mlp_dim", "norm_eps", "act")}
    inflated = FactorisedDims(
        tubelet_size=(tubelet, *patch_sides(dims.patch_size)),
        units_per_window=frames // tubelet,
        spatial_depth=dims.depth,
        temporal_depth=TEMPORAL_DEPTH,
        **sizes,
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
    foreign: Foreign, dims: FactorisedDims, preprocessing: Preprocessing
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The parameters, and the parts of the model, such as ``temporal``, that have random ones."""
    head = foreign.state.get("head.weight")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = Factorised(dims, preprocessing, len(foreign.labels) if head is None else len(head))
    central_frame_(model.patch_embed.proj, foreign.state["patch_embed.proj.weight"])
    own = model.state_dict()
    # What pools a backbone's tokens in the place of a head goes with it.
    dropped = (
        "patch_embed.proj.weight",
        *(("pooler.dense.weight", "pooler.dense.bias") if head is None else ()),
    )
    kept = {name: value for name, value in foreign.state.items() if name not in dropped}
    untrained = (name.partition(".")[0] for name in own if name not in foreign.state)
    return own | kept, tuple(dict.fromkeys(untrained))
