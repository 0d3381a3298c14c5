"""int8: near to float32, each token alone."""

import copy

import pytest
import torch
import torch.nn.functional as F

from tests.support.models import CASES, build, random_units
from tests.support.precisions import CPU, needs_int8
from tubelet.models.repository.repository import ModelStore
from tubelet.models.runtime.int8 import Int8Linear
from tubelet.models.runtime.onednn import pack
from tubelet.models.runtime.precision import choose_dtype
from tubelet.service.config.config import EngineConfig
from tubelet.service.engine.engine import Engine
from tubelet.service.metrics import Metrics

OURS = [case for case in CASES if not case.startswith(("torchvision", "r2plus1d"))]


@needs_int8
@pytest.mark.parametrize("case", OURS)
@torch.inference_mode()
def test_int8_is_near_to_float32(case: str) -> None:
    plain = build(case)
    model = copy.deepcopy(plain).to(choose_dtype("int8", CPU))
    bfloat16 = copy.deepcopy(model)
    pack(bfloat16)
    pack(model, Int8Linear)
    t, s, _ = CASES[case]
    units = random_units(2 * s, t)
    found, wanted = model.encode(units).float(), plain.encode(units)
    assert F.cosine_similarity(found, wanted).min() >= 0.995
    assert not torch.equal(found, bfloat16.encode(units).float()), "no layer is of integers"
    logits = model.classify(found.unflatten(0, (2, s)).to(choose_dtype("int8", CPU))).float()
    assert F.cosine_similarity(logits, plain.classify(wanted.unflatten(0, (2, s)))).min() >= 0.99


@needs_int8
@torch.inference_mode()
def test_a_token_is_quantised_by_itself() -> None:
    torch.manual_seed(0)
    linear = Int8Linear(torch.randn(32, 64), torch.randn(32))
    tokens = torch.randn(3, 5, 64)
    tokens[1] *= 1000
    tokens[2] = 0
    together = linear(tokens)
    torch.testing.assert_close(together, torch.cat([linear(each[None]) for each in tokens]))
    torch.testing.assert_close(together[2], linear.bias.expand(5, 32))


@needs_int8
async def test_the_engine_runs_in_int8_and_says_so() -> None:
    store = ModelStore()
    metrics = Metrics()
    async with Engine(EngineConfig(device="cpu", precision="int8"), metrics) as engine:
        spec = store.find("camera-motion").spec
        assert (await engine.load(store, spec)).precision == "int8"
    labels = {"model": spec.name, "version": spec.version, "family": spec.family, "device": "cpu"}
    assert metrics.registry.get_sample_value("tubelet_model_info", labels | {"dtype": "int8"}) == 1
