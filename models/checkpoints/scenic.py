"""Import scenic's ViViT checkpoints (factorised encoder): a tree of Flax parameters in MessagePack.

D embedding width, A heads, d a head's width.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.models.checkpoints.foreign_checkpoint import ForeignCheckpoint
from tubelet.models.errors import CannotImport
from tubelet.models.families.factorised import FactorisedDims
from tubelet.models.spec import Preprocessing, Provenance, Sampling

_NDARRAY = 1  # Flax's MessagePack extension type for an array: (shape, dtype, bytes)
_CHUNKED = "__msgpack_chunked_array__"
# scenic's name of an encoder -> tubelet's.
_ENCODERS = {"SpatialTransformer": "spatial", "TemporalTransformer": "temporal"}
_WINDOW_S = (
    32 * 2 / 25
)  # seconds: 32 frames, every second one, of Kinetics at 25 fps (arXiv 2103.15691, section 4.1)

# Pattern in scenic's names, without the encoder's -> tubelet's.
_RENAMES = (
    (r"^posembed_input\.pos_embedding$", "pos_embed"),
    (r"^encoder_norm\.", "norm."),
    (r"^encoderblock_(\d+)\.", r"blocks.\1."),
    (r"\.LayerNorm_0\.", ".norm1."),
    (r"\.LayerNorm_1\.", ".norm2."),
    (r"\.MlpBlock_0\.Dense_0\.", ".mlp.fc1."),
    (r"\.MlpBlock_0\.Dense_1\.", ".mlp.fc2."),
    (r"\.MultiHeadDotProductAttention_0\.out\.", ".attn.proj."),
    (r"\.MultiHeadDotProductAttention_0\.(query|key|value)\.", r".attn.\1."),
    # Flax calls the weight of a norm "scale", that of a layer "kernel".
    (r"\.(scale|kernel)$", ".weight"),
)


def is_messagepack_map(file: Path) -> bool:
    """Return whether a file's first byte starts a map in MessagePack: fixmap, map 16 or map 32."""
    with file.open("rb") as opened:
        first = opened.read(1)
    return b"\x80" <= first <= b"\x8f" or first in (b"\xde", b"\xdf")


def read_scenic(file: Path, provenance: Provenance, window_s: float | None) -> ForeignCheckpoint:
    """Read the checkpoint of a factorised encoder; the shapes of its parameters give its sizes.

    ``window_s`` is the time that a window spans, None: as trained.

    Raises:
        CannotImport: the file is not one of scenic, or holds another kind of ViViT.
    """
    params = _parameters(_unpack(file), file)
    missing = [name for name in (*_ENCODERS, "embedding", "output_projection") if name not in params]
    if missing:
        raise CannotImport(
            f"{file} is not a factorised encoder: it lacks {', '.join(missing)}, it has {', '.join(params)}"
        )
    known = {*_ENCODERS, *(f"cls_{name}" for name in _ENCODERS), "embedding", "output_projection"}
    if extra := sorted(params.keys() - known):
        raise CannotImport(
            f"{file} has parameters that a factorised encoder does not have: {', '.join(extra)}"
        )
    kernel = params["embedding"]["kernel"]
    if kernel.ndim != 5:
        raise CannotImport(f"{file} does not embed tubelets: its kernel has shape {kernel.shape}")
    state = {
        "patch_embed.proj.weight": _tensor(kernel.transpose(4, 3, 0, 1, 2)),
        "patch_embed.proj.bias": _tensor(params["embedding"]["bias"]),
        "head.weight": _tensor(params["output_projection"]["kernel"].T),
        "head.bias": _tensor(params["output_projection"]["bias"]),
    }
    for theirs, ours in _ENCODERS.items():
        if f"cls_{theirs}" not in params:
            raise CannotImport(f"{file} has no cls_{theirs}: only models with class tokens are supported")
        encoder = _encoder(params[theirs]) | {"cls_token": _tensor(params[f"cls_{theirs}"])}
        state |= {f"{ours}.{name}": value for name, value in encoder.items()}
    dims = _dims(params, kernel.shape)
    side = math.isqrt(state["spatial.pos_embed"].shape[1] - 1) * dims.tubelet_size[1]
    window = window_s or _WINDOW_S
    return ForeignCheckpoint(
        dims=dims,
        preprocessing=Preprocessing(
            *(side, side, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            resize_height=side * 256 // 224,
            resize_width=side * 256 // 224,
            resample="bilinear",
        ),
        sampling=Sampling(
            dims.tubelet_size[0], dims.units_per_window, window, window / 2, window / 4, window * 4, "start"
        ),
        labels=(),
        state=state,
        description=f"scenic's factorised ViViT, {dims.spatial_depth} + {dims.temporal_depth} layers.",
        licence="Apache-2.0",
        provenance=provenance,
    )


def _dims(params: dict[str, Any], kernel: tuple[int, ...]) -> FactorisedDims:
    """Read the sizes from the shapes of parameters; ``kernel`` is that of the tubelet embedding."""
    t, p, q, _, width = kernel
    spatial, temporal = (params[name] for name in _ENCODERS)
    attention = spatial["encoderblock_0"]["MultiHeadDotProductAttention_0"]
    return FactorisedDims(
        tubelet_size=(t, p, q),
        units_per_window=temporal["posembed_input"]["pos_embedding"].shape[1] - 1,
        embed_dim=width,
        spatial_depth=_depth(spatial),
        temporal_depth=_depth(temporal),
        num_heads=attention["query"]["kernel"].shape[1],
        mlp_dim=spatial["encoderblock_0"]["MlpBlock_0"]["Dense_0"]["kernel"].shape[1],
        act="gelu_tanh",  # Flax's default gelu
    )


def _depth(encoder: dict[str, Any]) -> int:
    """Count the blocks of an encoder."""
    return sum(name.startswith("encoderblock_") for name in encoder)


def _encoder(tree: dict[str, Any]) -> dict[str, Tensor]:
    """Rename the parameters of one encoder to tubelet's, q, k and v joined in one matrix."""
    renamed = {}
    for name, value in _leaves(tree):
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = _tensor(_linear(name, value))
    for number in range(_depth(tree)):
        for kind in ("weight", "bias"):
            parts = [renamed.pop(f"blocks.{number}.attn.{part}.{kind}") for part in ("query", "key", "value")]
            renamed[f"blocks.{number}.attn.qkv.{kind}"] = torch.cat(parts)
    return renamed


def _linear(name: str, value: np.ndarray) -> np.ndarray:
    """Reshape a kernel (in, out), (D, A, d) or (A, d, D) to torch's (out, in), a bias (A, d) to (A d,)."""
    if re.search(r"attn\.(query|key|value)\.weight$", name):
        return value.reshape(value.shape[0], -1).T
    if name.endswith("attn.proj.weight"):
        return value.reshape(-1, value.shape[-1]).T
    if name.endswith(("fc1.weight", "fc2.weight")):
        return value.T
    return value.reshape(-1) if re.search(r"attn\.\w+\.bias$", name) else value


def _tensor(value: np.ndarray) -> Tensor:
    """Copy an array to a float32 tensor."""
    return torch.tensor(np.ascontiguousarray(value, dtype=np.float32))


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield each array of a tree with its path, joined by dots."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _parameters(tree: Any, file: Path) -> dict[str, Any]:
    """Find the model's parameters anywhere in the saved training state.

    Raises:
        CannotImport: there is no output_projection, hence no ViViT.
    """
    waiting = [tree]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            if "output_projection" in found:
                return found
            waiting.extend(found.values())
    raise CannotImport(f"{file} does not hold a ViViT of scenic: it has no output_projection")


def _unpack(file: Path) -> Any:
    """Read a MessagePack file of Flax as a tree of dicts and numpy arrays.

    Raises:
        CannotImport: msgpack is not installed, or the file is damaged.
    """
    try:
        import msgpack
    except ModuleNotFoundError:
        raise CannotImport("scenic's checkpoints need msgpack: pip install 'tubelet[scenic]'") from None

    def array(code: int, data: bytes) -> object:
        """Decode an array, which Flax stores as an extension type of MessagePack."""
        if code != _NDARRAY:
            return msgpack.ExtType(code, data)
        shape, dtype, content = msgpack.unpackb(data, raw=True)
        return np.frombuffer(content, np.dtype(dtype.decode())).reshape(shape)

    def whole(tree: dict[str, Any]) -> Any:
        """Join an array of over 1 GiB, which Flax stores in chunks."""
        if _CHUNKED not in tree:
            return tree
        shape, chunks = ([part[str(i)] for i in range(len(part))] for part in (tree["shape"], tree["chunks"]))
        return np.concatenate(chunks).reshape(shape)

    try:
        with file.open("rb") as content:
            return msgpack.unpack(
                content,
                ext_hook=array,
                object_hook=whole,
                raw=False,
                strict_map_key=False,
            )
    except (OSError, ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise CannotImport(f"{file} is not a MessagePack file of Flax: {error}") from error
