"""int8: near to float32, each token alone, refused where it cannot run."""

import copy

import pytest
import torch
import torch.nn.functional as F

from models.int8 import Int8Linear
from models.packed import pack
from models.precision import UnsupportedPrecision, check_int8, choose_dtype, precision_name
from models.store import ModelStore
from service.config import EngineConfig
from service.engine.engine import Engine
from service.metrics import Metrics
from tests.test_models_families import CASES, build, random_units

CPU = torch.device("cpu")
OURS = [case for case in CASES if not case.startswith("torchvision")]

needs_vnni = pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="no AVX-512 VNNI here")


@needs_vnni
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


@needs_vnni
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


def test_int8_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedPrecision, match="runs on a CPU, but the device is cuda:1"):
        check_int8(torch.device("cuda:1"), "vit")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    with pytest.raises(UnsupportedPrecision, match="family torchvision"):
        check_int8(CPU, "torchvision")
    check_int8(CPU, "vit")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(UnsupportedPrecision, match="AVX-512 VNNI"):
        check_int8(CPU, "vit")


def test_the_precision_in_use_has_a_name() -> None:
    assert precision_name("int8", CPU) == "int8"
    assert precision_name("bf16", CPU) == "bfloat16"
    assert precision_name("fp32", CPU) == "float32"


@needs_vnni
async def test_the_engine_runs_in_int8_and_says_so() -> None:
    store = ModelStore()
    metrics = Metrics()
    async with Engine(EngineConfig(device="cpu", precision="int8"), metrics) as engine:
        spec = store.find("camera-motion").spec
        assert (await engine.load(store, spec)).precision == "int8"
    labels = {"model": spec.name, "version": spec.version, "family": spec.family, "device": "cpu"}
    assert metrics.registry.get_sample_value("tubelet_model_info", labels | {"dtype": "int8"}) == 1
    async with Engine(EngineConfig(device="cpu", precision="int8", runtime="openvino"), metrics) as engine:
        with pytest.raises(UnsupportedPrecision, match="openvino"):
            await engine.load(store, spec)
