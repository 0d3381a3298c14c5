"""scenic's ViViT checkpoints, factorised encoder: a tree of Flax parameters in MessagePack.

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

from tubelet.models.checkpoints.foreign_checkpoint import CannotImport, Foreign
from tubelet.models.families.factorised import FactorisedDims
from tubelet.models.spec import Preprocessing, Provenance, Sampling

_NDARRAY = 1  # Flax's MessagePack extension type for an array: (shape, dtype, bytes)
_CHUNKED = "__msgpack_chunked_array__"
_ENCODERS = {"SpatialTransformer": "spatial", "TemporalTransformer": "temporal"}
_WINDOW_S = 32 * 2 / 25  # 32 frames, every second one, of Kinetics at 25 fps (arXiv 2103.15691, section 4.1)

# Pattern in scenic's names, after the encoder's -> ours.
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
    # Flax calls the weight of a norm its scale, that of a layer its kernel.
    (r"\.(scale|kernel)$", ".weight"),
)


def is_map(file: Path) -> bool:
    """May it be a tree in MessagePack? By its first byte: fixmap, map 16 or map 32 of the format's table."""
    with file.open("rb") as opened:
        first = opened.read(1)
    return b"\x80" <= first <= b"\x8f" or first in (b"\xde", b"\xdf")


def read_scenic(file: Path, provenance: Provenance, window_s: float | None) -> Foreign:
    """The checkpoint of a factorised encoder; its sizes are read from the shapes of its parameters.

    Raises:
        CannotImport: it is no such file, or a ViViT of another kind.
    """
    params = _parameters(_unpack(file), file)
    missing = [name for name in (*_ENCODERS, "embedding", "output_projection") if name not in params]
    if missing:
        raise CannotImport(
            f"{file} is no factorised encoder: it lacks {', '.join(missing)}, it has {', '.join(params)}"
        )
    known = {*_ENCODERS, *(f"cls_{name}" for name in _ENCODERS), "embedding", "output_projection"}
    if extra := sorted(params.keys() - known):
        raise CannotImport(f"{file} has parameters that no factorised encoder here has: {', '.join(extra)}")
    kernel = params["embedding"]["kernel"]
    if kernel.ndim != 5:
        raise CannotImport(f"{file} embeds no tubelets: its kernel has shape {kernel.shape}")
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
    return Foreign(
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
        act="gelu_tanh",  # Flax's gelu unless told otherwise
    )


def _depth(encoder: dict[str, Any]) -> int:
    return sum(name.startswith("encoderblock_") for name in encoder)


def _encoder(tree: dict[str, Any]) -> dict[str, Tensor]:
    """One encoder's parameters under our names, q, k and v in one matrix."""
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
    """A kernel (in, out), (D, A, d) or (A, d, D) as torch's (out, in); a bias (A, d) flat."""
    if re.search(r"attn\.(query|key|value)\.weight$", name):
        return value.reshape(value.shape[0], -1).T
    if name.endswith("attn.proj.weight"):
        return value.reshape(-1, value.shape[-1]).T
    if name.endswith(("fc1.weight", "fc2.weight")):
        return value.T
    return value.reshape(-1) if re.search(r"attn\.\w+\.bias$", name) else value


def _tensor(value: np.ndarray) -> Tensor:
    return torch.tensor(np.ascontiguousarray(value, dtype=np.float32))


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _parameters(tree: Any, file: Path) -> dict[str, Any]:
    """The model's parameters, wherever the training's state keeps them."""
    waiting = [tree]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            if "output_projection" in found:
                return found
            waiting.extend(found.values())
    raise CannotImport(f"{file} holds no ViViT of scenic's: there is no output_projection in it")


def _unpack(file: Path) -> Any:
    try:
        import msgpack
    except ModuleNotFoundError:
        raise CannotImport("scenic's checkpoints need msgpack: pip install 'tubelet[scenic]'") from None

    def array(code: int, data: bytes) -> object:
        if code != _NDARRAY:
            return msgpack.ExtType(code, data)
        shape, dtype, content = msgpack.unpackb(data, raw=True)
        return np.frombuffer(content, np.dtype(dtype.decode())).reshape(shape)

    def whole(tree: dict[str, Any]) -> Any:
        """Arrays over 1 GiB come in pieces."""
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
        raise CannotImport(f"{file} is no MessagePack file of Flax: {error}") from error
