"""CUDA graphs give the answers of plain kernels, for batches of any size."""

import pytest
import torch

from tests.support.models import CASES, build, random_units
from tubelet.models.families.huggingface import HfModel
from tubelet.models.families.torchvision import TorchvisionModel
from tubelet.models.runtime.cuda_graphs import GraphedModel, recorded_sizes

OURS = [case for case in CASES if not case.startswith("torchvision")]
LARGEST = 12


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, [1]), (2, [1, 2]), (12, [1, 2, 4, 8, 12]), (16, [1, 2, 4, 8, 16])]
)
def test_powers_of_two_and_the_largest_batch_are_recorded(largest: int, sizes: list[int]) -> None:
    assert recorded_sizes(largest) == sizes


def test_only_our_own_families_are_recorded() -> None:
    assert all(build(case).supports_cuda_graphs for case in OURS)
    assert not HfModel.supports_cuda_graphs
    assert not TorchvisionModel.supports_cuda_graphs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("case", OURS)
@torch.inference_mode()
def test_graphs_equal_plain_kernels_and_the_cpu(case: str) -> None:
    t, s, _ = CASES[case]
    on_cpu, plain = build(case), build(case).to("cuda")
    graphed = GraphedModel(plain, t, LARGEST)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    # Smaller than the largest, as large, ragged, one; what one computed outlives the next.
    batches = [random_units(count, t) for count in (3, LARGEST, 5, 1, 8, 2)]
    with torch.cuda.stream(stream):
        found = [graphed.encode(batch.to("cuda")) for batch in batches]
        wanted = [plain.encode(batch.to("cuda")) for batch in batches]
        windows = found[1][:s][None]
        logits, vectors = graphed.classify(windows).cpu(), graphed.pool(windows).cpu()
    for batch, graph, kernels in zip(batches, found, wanted, strict=True):
        torch.testing.assert_close(graph, kernels, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(graph.cpu(), on_cpu.encode(batch), atol=2e-3, rtol=2e-3)
    windows = on_cpu.encode(batches[1])[:s][None]
    torch.testing.assert_close(logits, on_cpu.classify(windows), atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(vectors, on_cpu.pool(windows), atol=1e-2, rtol=1e-2)
