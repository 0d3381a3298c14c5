"""What training starts from: a temporal transformer that averages, principal components, a base."""

import pytest
import torch
import torch.nn.functional as F

from tests.support.models import CASES, CLASSES, PREPROCESSING, build, random_units
from tubelet.models.errors import CannotTrain
from tubelet.models.families.factorised import Factorised, FactorisedDims
from tubelet.models.families.framewise import Framewise, FramewiseDims, TemporalDims
from tubelet.models.families.layers import BlockDims, Encoder
from tubelet.models.families.vit import ViTDims
from tubelet.models.training.start import (
    TemporalStage,
    average_,
    build_from,
    head_parameters,
    set_principal_,
    temporal_dims,
)


def test_a_new_temporal_transformer_averages_its_tokens() -> None:
    encoder = Encoder(6, 3, BlockDims(48, 3, 96))
    average_(encoder)
    tokens = torch.randn(4, 6, 48)
    wanted = F.layer_norm(F.layer_norm(tokens, (48,)).mean(dim=1), (48,))
    assert torch.allclose(encoder.cls(tokens), wanted, atol=1e-3)
    assert torch.allclose(encoder.cls(tokens.flip(1)), wanted, atol=1e-3), "the order makes no difference"


def test_it_can_learn_the_order_of_its_tokens() -> None:
    torch.manual_seed(0)
    encoder = Encoder(4, 2, BlockDims(16, 2, 32))
    average_(encoder)
    head = torch.nn.Linear(16, 2)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=5e-3)
    tokens = torch.randn(64, 4, 16).cumsum(dim=1)
    both, labels = torch.cat((tokens, tokens.flip(1))), torch.arange(2).repeat_interleave(64)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = F.cross_entropy(head(encoder.cls(both)), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4, "a mean could not tell a sequence from its reverse: ln 2 = 0.69"


def test_an_adapter_keeps_the_principal_components() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(500, 3) @ torch.randn(3, 20) + 5
    adapter = torch.nn.Linear(20, 8)
    set_principal_(adapter, embeddings)
    projected = adapter(embeddings)
    assert projected.mean(dim=0).abs().max() < 1e-3
    distances = torch.cdist(projected, projected)
    wanted = torch.cdist(embeddings, embeddings)
    ratio = distances[wanted > 1] / wanted[wanted > 1]
    assert ratio.std() / ratio.mean() < 1e-3, "the embeddings lie in three dimensions, so distances are kept"


@pytest.mark.parametrize("case", ["factorised", "framewise", "vit", "torchvision, frames"])
def test_the_spatial_stage_is_the_base_s(case: str) -> None:
    base, frames = build(case), CASES[case][0]
    dims = temporal_dims(CASES[case][2], 4)
    model = build_from(dims, CASES[case][2], base.state_dict(), PREPROCESSING, CLASSES + 1).eval()
    units = random_units(6, frames)
    with torch.no_grad():
        assert torch.equal(model.encode(units), base.encode(units))
        assert model.classify(model.encode(units)[None, :4]).shape == (1, CLASSES + 1)


def test_a_factorised_model_keeps_its_temporal_stage() -> None:
    base = build("factorised")
    dims = temporal_dims(CASES["factorised"][2], 4)
    model = build_from(dims, CASES["factorised"][2], base.state_dict(), PREPROCESSING, 2).eval()
    assert isinstance(model, Factorised)
    assert model.adapter is not None
    windows = torch.randn(3, 4, 48)
    with torch.no_grad():
        assert torch.equal(model.pool(windows), base.pool(windows)), "the adapter starts as the identity"


def test_families_without_units_have_no_temporal_stage() -> None:
    with pytest.raises(CannotTrain, match="the level temporal needs an image model"):
        temporal_dims(CASES["joint"][2], 2)


def test_a_stage_gives_back_what_it_learned() -> None:
    dims = FramewiseDims(vit=ViTDims(16, 48, 1, 3, 96), temporal=TemporalDims(4, 32, 1, 2, 64))
    torch.manual_seed(0)
    model = Framewise(dims, PREPROCESSING, 2).eval()
    stage = TemporalStage(model).eval()
    windows = torch.randn(3, 4, 48)
    names = {name for name, _ in stage.named_parameters()}
    assert not any("image" in name for name in names)
    with torch.no_grad():
        assert torch.equal(stage(windows), model.classify(windows))
        for parameter in stage.parameters():
            parameter.add_(torch.randn_like(parameter))
        assert not torch.equal(stage(windows), model.classify(windows))
        stage.give_to_(model)
        assert torch.equal(stage(windows), model.classify(windows))


@pytest.mark.parametrize("case", ["factorised", "vit", "torchvision, clips"])
def test_a_head_divided_by_a_temperature_divides_logits(case: str) -> None:
    model, frames = build(case), CASES[case][0]
    units = random_units(CASES[case][1], frames)[None]
    parameters = head_parameters(model)
    assert parameters is not None
    with torch.no_grad():
        before = model(units)
        for parameter in parameters:
            parameter.div_(2)
        assert torch.allclose(model(units), before / 2, atol=1e-5)


def test_dims_of_an_adapter_are_kept() -> None:
    dims = temporal_dims(FactorisedDims((2, 8, 8), 4, 48, 1, 1, 3, 96), 4)
    assert dims == temporal_dims(dims, 4)
