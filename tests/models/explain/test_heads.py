"""The maps of all layers and heads, of one pass: the same as those of method ``attention``, one by one."""

from collections import Counter

import pytest
import torch

from tests.support.explained import GRIDS, TRANSFORMERS, explained, random_window
from tubelet.models.errors import CannotExplain
from tubelet.models.explain.explain import explain, head_maps
from tubelet.models.explain.explanation import Question

HEADS = 3
LAYERS = {"factorised": ("patches",) * 2 + ("units",) * 2, "divided": ("frames", "patches of a frame") * 2}


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_each_map_is_that_of_its_layer_and_head(case: str) -> None:
    model, spec = explained(case)
    window = random_window(case)
    found = head_maps(model, spec, window)
    assert found.attended == LAYERS.get(case, ("patches",) * 2)
    assert found.maps.shape == (len(found.attended), HEADS, *GRIDS[case])
    assert found.on_no_patch.shape == found.maps.shape[:2]
    for layer in range(len(found.attended)):
        for head in range(HEADS):
            alone = explain(model, spec, window, Question("attention", layer=layer, head=head))
            torch.testing.assert_close(found.maps[layer, head], alone.map, atol=1e-6, rtol=1e-5)
            assert float(found.on_no_patch[layer, head]) == pytest.approx(alone.on_no_patch, abs=1e-6)


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_all_heads_take_as_many_runs_as_one(case: str) -> None:
    model, spec = explained(case)
    window = random_window(case)
    runs = Counter[str]()
    for name, module in model.named_modules():
        if name.endswith("qkv"):
            module.register_forward_hook(lambda *_, name=name: runs.update([name]))
    head_maps(model, spec, window)
    of_all = runs.copy()
    runs.clear()
    last = len(of_all) - 1
    explain(model, spec, window, Question("attention", layer=last, head=0))
    assert of_all == runs
    assert len(runs) == len(LAYERS.get(case, ("patches",) * 2))


def test_a_family_without_attention_has_no_heads() -> None:
    model, spec = explained("torchvision, clips")
    with pytest.raises(
        CannotExplain, match=r"of family torchvision are not explained by attention"
    ) as refusal:
        head_maps(model, spec, random_window("torchvision, clips"))
    assert refusal.value.reason == "METHOD_NOT_SUPPORTED"
