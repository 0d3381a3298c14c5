"""scenic's factorised ViViT: a checkpoint in Flax's layout, against the same computed from that layout.

b clips, t tubelets in time, p places in space, A heads, d a head's width, D embedding width.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tubelet.models.checkpoints.importer import read_source, store_model
from tubelet.models.checkpoints.labels import read_labels
from tubelet.models.errors import CannotImport
from tubelet.models.families.factorised import FactorisedDims
from tubelet.models.repository.repository import ModelStore

WIDTH, HEADS, HIDDEN, SIDE, PATCH, TUBELET, UNITS, CLASSES = 24, 3, 40, 32, 8, 2, 4, 6
SPATIAL, TEMPORAL = 2, 3


def tree() -> dict[str, Any]:
    """The parameters as Flax keeps them."""
    random = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return random.normal(0, 0.2, shape).astype(np.float32)

    def linear(*shape: int, out: tuple[int, ...]) -> dict[str, np.ndarray]:
        return {"kernel": some(*shape, *out), "bias": some(*out)}

    def norm() -> dict[str, np.ndarray]:
        return {"scale": 1 + some(WIDTH), "bias": some(WIDTH)}

    def block() -> dict[str, Any]:
        head = (HEADS, WIDTH // HEADS)
        attention = {name: linear(WIDTH, out=head) for name in ("query", "key", "value")}
        return {
            "LayerNorm_0": norm(),
            "MultiHeadDotProductAttention_0": attention | {"out": linear(*head, out=(WIDTH,))},
            "LayerNorm_1": norm(),
            "MlpBlock_0": {"Dense_0": linear(WIDTH, out=(HIDDEN,)), "Dense_1": linear(HIDDEN, out=(WIDTH,))},
        }

    def encoder(depth: int, tokens: int) -> dict[str, Any]:
        blocks = {f"encoderblock_{number}": block() for number in range(depth)}
        position = {"posembed_input": {"pos_embedding": some(1, 1 + tokens, WIDTH)}}
        return blocks | position | {"encoder_norm": norm()}

    return {
        "embedding": linear(TUBELET, PATCH, PATCH, 3, out=(WIDTH,)),
        "cls_SpatialTransformer": some(1, 1, WIDTH),
        "cls_TemporalTransformer": some(1, 1, WIDTH),
        "SpatialTransformer": encoder(SPATIAL, (SIDE // PATCH) ** 2),
        "TemporalTransformer": encoder(TEMPORAL, UNITS),
        "output_projection": linear(WIDTH, out=(CLASSES,)),
    }


def write(file: Path, content: dict[str, Any], chunk: int | None = None) -> None:
    """As flax.serialization.msgpack_serialize does; arrays of more than ``chunk`` numbers come in pieces."""

    def packed(value: object) -> object:
        if isinstance(value, dict):
            return {key: packed(each) for key, each in value.items()}
        assert isinstance(value, np.ndarray)
        if chunk is not None and value.size > chunk:
            parts = np.array_split(value.ravel(), -(-value.size // chunk))
            return {
                "__msgpack_chunked_array__": True,
                "shape": {str(i): length for i, length in enumerate(value.shape)},
                "chunks": {str(i): packed(part) for i, part in enumerate(parts)},
            }
        return msgpack.ExtType(1, msgpack.packb((value.shape, value.dtype.name, value.tobytes())))

    packer = msgpack.Packer()
    file.write_bytes(packer.pack(packed(content)))


def computed(params: dict[str, Any], clips: torch.Tensor) -> torch.Tensor:
    """Logits (b, K) by Flax's formulas from Flax's layout: (b, T, H, W, 3) uint8."""
    weights = {key: _torch(value) for key, value in params.items()}
    pixels = clips.float() / 255 * 2 - 1
    cut = pixels.unfold(1, TUBELET, TUBELET).unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
    tokens = torch.einsum("bthwcuij,uijcd->bthwd", cut, weights["embedding"]["kernel"])
    tokens = (tokens + weights["embedding"]["bias"]).flatten(2, 3)
    spatial = torch.stack(
        [_encode(weights, "SpatialTransformer", tokens[:, step]) for step in range(tokens.shape[1])], dim=1
    )
    clip = _encode(weights, "TemporalTransformer", spatial)
    return clip @ weights["output_projection"]["kernel"] + weights["output_projection"]["bias"]


def _torch(value: Any) -> Any:
    return (
        {key: _torch(each) for key, each in value.items()} if isinstance(value, dict) else torch.tensor(value)
    )


def _encode(weights: dict[str, Any], name: str, x: torch.Tensor) -> torch.Tensor:
    encoder = weights[name]
    x = torch.cat((weights[f"cls_{name}"].expand(len(x), -1, -1), x), dim=1)
    x = x + encoder["posembed_input"]["pos_embedding"]
    for number in range(sum(key.startswith("encoderblock") for key in encoder)):
        block = encoder[f"encoderblock_{number}"]
        attention, mlp = block["MultiHeadDotProductAttention_0"], block["MlpBlock_0"]
        y = _norm(block["LayerNorm_0"], x)
        q, k, v = (
            torch.einsum("bpD,DAd->bApd", y, attention[part]["kernel"]) + attention[part]["bias"][:, None]
            for part in ("query", "key", "value")
        )
        seen = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v
        x = x + torch.einsum("bApd,AdD->bpD", seen, attention["out"]["kernel"]) + attention["out"]["bias"]
        y = _norm(block["LayerNorm_1"], x)
        y = F.gelu(y @ mlp["Dense_0"]["kernel"] + mlp["Dense_0"]["bias"], approximate="tanh")
        x = x + y @ mlp["Dense_1"]["kernel"] + mlp["Dense_1"]["bias"]
    return _norm(encoder["encoder_norm"], x)[:, 0]


def _norm(norm: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, (WIDTH,), norm["scale"], norm["bias"], eps=1e-6)


@pytest.mark.parametrize("chunk", [None, 500])
@torch.inference_mode()
def test_logits_equal_those_of_flaxs_layout(tmp_path: Path, chunk: int | None) -> None:
    params, file = tree(), tmp_path / "checkpoint_30"
    write(file, {"optimizer": {"target": {"params": params}}}, chunk)
    (tmp_path / "labels.txt").write_text("\n".join("abcdef"))
    foreign = read_source(str(file))
    assert isinstance(foreign.dims, FactorisedDims)
    assert (foreign.dims.spatial_depth, foreign.dims.temporal_depth) == (SPATIAL, TEMPORAL)
    labelled = dataclasses.replace(foreign, labels=read_labels(str(tmp_path / "labels.txt")))
    store_model(labelled, tmp_path / "store", "imported", "1")
    model = ModelStore(tmp_path / "store").find("imported").load()
    clips = torch.randint(0, 256, (2, UNITS * TUBELET, SIDE, SIDE, 3), dtype=torch.uint8)
    wanted = computed(params, clips)
    assert wanted.std() > 0.1
    found = model(clips.unflatten(1, (UNITS, TUBELET)))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def _set(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(params: dict[str, Any]) -> None:
        *above, last = names
        for name in above:
            params = params[name]
        if last in params:
            del params[last]
        else:
            params[last] = {"kernel": np.zeros((WIDTH, WIDTH), np.float32)}

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("pre_logits"), "a factorised encoder does not have: pre_logits"),
        (_set("output_projection", "bias"), "has no bias"),
        (_set("SpatialTransformer", "posembed_input"), "has no spatial.pos_embed"),
        (
            _set("SpatialTransformer", "encoderblock_0", "MultiHeadDotProductAttention_0", "key"),
            "has no blocks.0.attn.key.weight",
        ),
    ],
)
def test_what_is_missing_or_too_much_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    params = tree()
    change(params)
    write(tmp_path / "checkpoint", params)
    with pytest.raises(CannotImport, match=says):
        read_source(str(tmp_path / "checkpoint"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not a checkpoint"),
        (b"\x81\xa1a", "not a MessagePack file"),
        (b"<html>", "is not a checkpoint"),
        (msgpack.packb({"params": {"head": 1}}), "it has no output_projection"),
        (msgpack.packb({"output_projection": {}, "Transformer": {}}), "lacks SpatialTransformer"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(CannotImport, match=says):
        read_source(str(tmp_path / "checkpoint"))
