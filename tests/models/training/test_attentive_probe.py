"""Attentive probes on made units: evidence in one unit or in the order of units, and none at all."""

from pathlib import Path

import pytest
import torch

from tests.support.models import CLASSES, PREPROCESSING, WIDTH, random_units
from tubelet.models.checkpoints.onnx_export import TOLERANCE, export_onnx
from tubelet.models.families.framewise import FramewiseDims
from tubelet.models.families.registry import build_model
from tubelet.models.families.unit_pooling import pool_units
from tubelet.models.families.vit import ViTDims
from tubelet.models.repository.model_folder import read_folder, write_folder
from tubelet.models.spec import ModelSpec, Sampling
from tubelet.models.training.attentive_probe import join_units
from tubelet.models.training.probe_fit import Probe, ProbeData, compare, fit
from tubelet.models.training.probe_model import attentive_dims, build_probe, set_probe_

WINDOWS, UNITS = 80, 8


def made(evidence: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return units of noise, (80, 8, 24), of two classes that order, one unit or nothing tells apart."""
    draw = torch.Generator().manual_seed(0)
    units = torch.randn(WINDOWS, UNITS, WIDTH, generator=draw)
    labels = torch.arange(WINDOWS) % 2
    signs = torch.nn.functional.normalize(torch.randn(2, WIDTH, generator=draw))
    if evidence == "order":
        units[:, : UNITS // 2] += 2 * signs[labels][:, None]
        units[:, UNITS // 2 :] += 2 * signs[1 - labels][:, None]
    elif evidence == "one unit":
        places = torch.randint(0, UNITS, (WINDOWS,), generator=draw)
        units[torch.arange(WINDOWS), places] += 6 * signs[labels]
    return units, labels


def data_of(units: torch.Tensor, labels: torch.Tensor) -> ProbeData:
    """Put two windows in each scene, and scenes in four folds."""
    scenes = torch.arange(WINDOWS) // 2
    return ProbeData(
        {"mean": pool_units(units, "mean")},
        labels,
        torch.arange(WINDOWS),
        scenes % 4,
        2,
        join_units([units]),
        scenes,
    )


@pytest.mark.parametrize("evidence", ["order", "one unit"])
def test_an_attentive_probe_is_chosen_where_units_or_their_order_tell(evidence: str) -> None:
    choice, found = compare(data_of(*made(evidence)))
    assert found is not None
    assert found.is_gain
    assert choice.steps > 0
    assert choice.loss == found.attentive < found.linear - 0.1


def test_the_linear_probe_stays_where_nothing_is_gained() -> None:
    choice, found = compare(data_of(*made("none")))
    assert found is not None
    assert found.is_gain == (found.linear - found.attentive > found.standard_error)
    assert not found.is_gain
    assert choice.steps == 0


def test_one_training_is_as_another() -> None:
    data = data_of(*made("one unit"))
    choice, _ = compare(data)
    assert torch.equal(fit(data, choice).logits(data), fit(data, choice).logits(data))


def test_padding_changes_no_answer() -> None:
    units, labels = made("one unit")
    data = data_of(units, labels)
    choice, _ = compare(data)
    probe = fit(data, choice)
    short, long = units[:2, :5], units[2:4]
    joined = ProbeData({}, labels[:4], data.clips[:4], data.folds[:4], 2, join_units([short, long]))
    assert probe.pooling is not None
    wanted = torch.cat([probe.head(probe.pooling(each)) for each in (short, long)])
    torch.testing.assert_close(probe.logits(joined), wanted)


@torch.no_grad()
def attentive(pool_width: int, labels: int, dims: FramewiseDims) -> Probe:
    """Return a probe with random weights on a model of ``dims``."""
    model = build_model(dims, PREPROCESSING, labels)
    draw = torch.Generator().manual_seed(4)
    pooling, head = model.get_submodule("pooling"), model.get_submodule("head")
    for each in (*pooling.parameters(), *head.parameters()):
        each.copy_(torch.randn(each.shape, generator=draw))
    assert head.get_parameter("weight").shape[1] == pool_width
    return Probe("mean and change", head, pooling)  # pyright: ignore[reportArgumentType]


@torch.inference_mode()
def test_a_stored_model_has_the_logits_of_its_probe_in_onnx_runtime_too(tmp_path: Path) -> None:
    base_dims = ViTDims(16, WIDTH, 2, 3, 96)
    torch.manual_seed(0)
    base = build_model(base_dims, PREPROCESSING, CLASSES).eval()
    dims = attentive_dims(base_dims)["mean and change"]
    assert isinstance(dims, FramewiseDims)
    probe = attentive(4 * WIDTH, CLASSES, dims)
    model = build_probe(dims, base_dims, base.state_dict(), PREPROCESSING, CLASSES)
    set_probe_(model, probe, 2.0)
    spec = ModelSpec(
        name="small",
        version="1",
        family="framewise",
        description="an attentive probe",
        licence="none",
        labels=tuple(map(str, range(CLASSES))),
        sampling=Sampling(1, 4, window_s=2.0, stride_s=1.0, min_window_s=1.0, max_window_s=4.0),
        preprocessing=PREPROCESSING,
    )
    write_folder(tmp_path / "small", spec, dims, model, "card")
    entry = read_folder(tmp_path / "small")
    windows = base.encode(random_units(8, 1)).unflatten(0, (2, 4))
    data = ProbeData({}, torch.zeros(2), torch.zeros(2), torch.zeros(2), CLASSES, join_units([windows]))
    torch.testing.assert_close(entry.load().classify(windows), probe.logits(data) / 2)
    assert export_onnx(entry, tmp_path / "small.onnx") <= TOLERANCE
