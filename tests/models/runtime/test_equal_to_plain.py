"""The fast path gives the plain one's answers; FLOPs are those of the formulas."""

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from tests.support.models import CASES, SIZE, build, random_units
from tests.support.precisions import DTYPES
from tubelet.models.families.divided import DividedDims
from tubelet.models.families.factorised import FactorisedDims
from tubelet.models.families.framewise import FramewiseDims
from tubelet.models.families.joint import JointDims
from tubelet.models.families.layers import EncoderBlock
from tubelet.models.families.registry import Dims, build_model
from tubelet.models.families.torchvision import TorchvisionDims
from tubelet.models.families.vit import ViTDims
from tubelet.models.flops import window_flops
from tubelet.models.runtime.onednn import pack
from tubelet.models.spec import Preprocessing, Sampling

OURS = [case for case in CASES if not case.startswith("torchvision")]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", OURS)
@torch.inference_mode()
def test_packed_equals_plain(case: str, dtype: torch.dtype) -> None:
    plain = build(case)
    packed = copy.deepcopy(plain).to(dtype)
    pack(packed)
    replaced = ("qkv.weight", "fc1.weight", "patch_embed.proj.weight", "temporal_fc.weight")
    assert not any(name.endswith(replaced) for name in packed.state_dict())
    t, s, _ = CASES[case]
    units = random_units(2 * s, t)
    found, wanted = packed.encode(units).float(), plain.encode(units)
    if dtype == torch.float32:
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
    assert F.cosine_similarity(found.flatten(1), wanted.flatten(1)).min() >= 0.9995
    windows = wanted.unflatten(0, (2, s))
    found = packed.classify(windows.to(dtype)).float()
    assert F.cosine_similarity(found, plain.classify(windows)).min() >= 0.9995


@torch.inference_mode()
def test_layers_of_others_are_left_alone() -> None:
    model = build_model(TorchvisionDims("swin3d_t", 2), PREPROCESSING, 5).eval()
    units = random_units(1, 2)
    wanted = model.encode(units)
    pack(model)
    assert torch.equal(model.encode(units), wanted)


_WITHOUT_ONEDNN = """
import torch

class None_:
    def __getattr__(self, name):
        raise AttributeError(f"this torch has no operator {name}")

torch.ops.mkldnn = torch.ops.onednn = None_()
torch.backends.mkldnn.is_available = lambda: False
from tubelet.models.runtime.onednn import pack
from tests.support.models import build, random_units

model, units = build("vit"), random_units(2, 1)
with torch.inference_mode():
    wanted = model.encode(units)
    pack(model)
    assert torch.equal(model.encode(units), wanted)
"""


def test_a_torch_without_onednn_computes_as_well() -> None:
    result = subprocess.run([sys.executable, "-c", _WITHOUT_ONEDNN], stderr=subprocess.PIPE, text=True)
    assert result.returncode == 0, result.stderr


def blocks(tokens: int, width: int, hidden: int) -> int:
    """FLOPs of one transformer block."""
    return 2 * tokens * (4 * width**2 + 2 * width * hidden) + 4 * tokens**2 * width


def last_block(tokens: int, width: int, hidden: int) -> int:
    """FLOPs of a block of which only the class token is wanted."""
    return 2 * tokens * 3 * width**2 + 2 * (width**2 + 2 * width * hidden) + 4 * tokens * width


PREPROCESSING = Preprocessing(SIZE, SIZE, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
P = (SIZE // 8) ** 2
# Dims, units in a window, frames in a unit, spatial and temporal FLOPs of a window of 7 classes.
COUNTS: dict[str, tuple[Dims, int, int, int, int]] = {
    "vit": (
        *(ViTDims(8, 48, 3, 3, 96), 6, 1),
        6 * (2 * P * 192 * 48 + 2 * blocks(P + 1, 48, 96) + last_block(P + 1, 48, 96)),
        6 * 2 * 48 * 7,
    ),
    "factorised": (
        *(FactorisedDims((2, 8, 8), 4, 48, 3, 2, 3, 96), 4, 2),
        4 * (2 * P * 384 * 48 + 2 * blocks(P + 1, 48, 96) + last_block(P + 1, 48, 96)),
        blocks(5, 48, 96) + last_block(5, 48, 96) + 2 * 48 * 7,
    ),
    "joint": (
        *(JointDims(4, (2, 8, 8), 48, 3, 3, 96, "mean"), 1, 4),
        2 * 2 * P * 384 * 48 + 3 * blocks(2 * P, 48, 96),
        2 * 48 * 7,
    ),
    "divided": (
        *(DividedDims(4, 8, 48, 3, 3, 96), 1, 4),
        2 * 4 * P * 192 * 48
        + 3 * (2 * 4 * P * 5 * 48**2 + 4 * P * 4**2 * 48)  # time: qkv, proj, fc
        + 2 * 4 * (2 * (P + 1) * 4 * 48**2 + 4 * (P + 1) ** 2 * 48)  # space
        + 2 * 2 * (4 * P + 1) * 2 * 48 * 96  # mlp
        + 4 * (2 * (P + 1) * 3 * 48**2 + 2 * 48**2 + 4 * (P + 1) * 48)
        + 2 * 2 * 48 * 96,  # the last block
        2 * 48 * 7,
    ),
}


@pytest.mark.parametrize("family", COUNTS)
def test_flops_are_those_of_the_formulas(family: str) -> None:
    dims, units, frames, spatial, temporal = COUNTS[family]
    found = window_flops(dims, PREPROCESSING, Sampling(frames, units, 2, 2, 1, 4), 7)
    assert (found.spatial, found.temporal) == (spatial, temporal)
    assert found.total == spatial + temporal


@pytest.mark.parametrize("is_framewise", [False, True])
def test_regnets_have_flops(is_framewise: bool) -> None:
    """torchvision computes their sizes with tensors that must have values; it states their GFLOPS."""
    net = TorchvisionDims("regnet_y_400mf", 1)
    pixels = Preprocessing(224, 224, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    dims = FramewiseDims(torchvision=net) if is_framewise else net
    found = window_flops(dims, pixels, Sampling(1, 1, 2, 2, 1, 4), 1000)
    assert found.total == pytest.approx(2 * 0.402e9, rel=0.01)


class ScaledBlock(EncoderBlock):
    """A block of a plugin that computes something else."""

    def forward(self, x: torch.Tensor, num_queries: int | None = None) -> torch.Tensor:
        return 0.5 * super().forward(x, num_queries)


@torch.inference_mode()
def test_a_block_that_computes_something_else_is_not_replaced() -> None:
    plain = build("vit")
    for block in plain.get_submodule("spatial.blocks").children():
        block.__class__ = ScaledBlock
    packed = copy.deepcopy(plain)
    pack(packed)
    units = random_units(2, CASES["vit"][0])
    torch.testing.assert_close(packed.encode(units), plain.encode(units), atol=2e-5, rtol=1e-4)


def test_batches_on_a_cpu_are_as_large_as_useful() -> None:
    assert build("vit").cpu_batch_units == 2048 // 5
    assert build("joint").cpu_batch_units == 2048 // 32
    assert build("torchvision, frames").cpu_batch_units == 8
    assert build("torchvision, clips").cpu_batch_units == 1
