"""What a batch of windows gives: logits, vectors or both, whatever the other windows of the batch ask for."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.support.models import CASES, CLASSES, PREPROCESSING, build, random_units
from tubelet.models.spec import ModelSpec, Sampling
from tubelet.service.engine.model_runner import CpuThreads, ModelRunner, WindowInput, WindowOutput

LOGITS, VECTOR, BOTH = WindowOutput.LOGITS, WindowOutput.VECTOR, WindowOutput.BOTH


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_each_window_gets_what_it_asks_for(case: str) -> None:
    t, s, _ = CASES[case]
    model = build(case)
    spec = ModelSpec(
        name="random",
        version="1",
        family=case,
        description="",
        licence="",
        labels=tuple("abcde"),
        sampling=Sampling(t, s, 2.0, 1.0, 1.0, 4.0),
        preprocessing=PREPROCESSING,
    )
    assert len(spec.labels) == CLASSES
    runner = ModelRunner(spec, model, torch.device("cpu"), 4, lambda units: None, CpuThreads(1))
    embeddings = model.encode(random_units(s + 2, t))
    windows = [list(embeddings[first : first + s]) for first in range(3)]
    batch = torch.stack([torch.stack(window) for window in windows])
    logits, vectors = model.classify(batch).numpy(), model.pool(batch).numpy()
    wanted = {LOGITS: logits, VECTOR: vectors, BOTH: np.concatenate([logits, vectors], axis=1)}

    def compute(*outputs: WindowOutput) -> Sequence[np.ndarray]:
        rows = runner.classify([WindowInput(*each) for each in zip(windows, outputs, strict=True)])
        assert isinstance(rows, list)
        return rows

    for outputs in ([LOGITS] * 3, [VECTOR] * 3, [BOTH] * 3, [LOGITS, VECTOR, BOTH], [VECTOR, LOGITS, LOGITS]):
        for number, (output, row) in enumerate(zip(outputs, compute(*outputs), strict=True)):
            np.testing.assert_allclose(row, wanted[output][number], atol=1e-5)

    if isinstance(model.head, torch.nn.Module):
        calls = list[str]()
        model.head.register_forward_pre_hook(lambda *_: calls.append("head"))
        compute(VECTOR, VECTOR, VECTOR)
        assert not calls
        compute(VECTOR, VECTOR, LOGITS)
        assert calls
