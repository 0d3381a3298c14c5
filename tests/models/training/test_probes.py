"""Probes against scikit-learn and closed forms; their choice and estimate on data with a known answer."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.support.models import CASES, CLASSES, PREPROCESSING, WIDTH, random_units
from tubelet.models.errors import CannotTrain
from tubelet.models.families.channel_stack import ChannelStackDims
from tubelet.models.families.framewise import FramewiseDims
from tubelet.models.families.registry import Dims, build_model
from tubelet.models.families.torchvision import TorchvisionDims
from tubelet.models.families.vit import ViTDims
from tubelet.models.training.calibration import LIMITS, fit_temperature
from tubelet.models.training.probe_fit import Probe, ProbeData, choose, estimate, mean_by_clip
from tubelet.models.training.probe_model import build_probe, probe_dims, set_probe_
from tubelet.models.training.probes import class_weights, fit_linear, held_out_logits, in_other_folds


def blobs(count: int, width: int, classes: int, distance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around a centre for each class, and their classes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    centres = distance * torch.randn(classes, width, generator=generator)
    return centres[labels] + torch.randn(count, width, generator=generator), labels


@pytest.mark.parametrize("width", [5, 80], ids=["many windows", "many features"])
def test_a_probe_is_regularised_logistic_regression(width: int) -> None:
    vectors, labels = blobs(60, width, 3, 0.7)
    vectors = 3 * vectors + 10  # features that are not standardised
    decay = 0.2
    layer = fit_linear(vectors, labels, 3, decay)
    scaled = (vectors - vectors.mean(0)) / vectors.std(0, correction=0)
    theirs = LogisticRegression(C=1 / (decay * 60), class_weight="balanced", tol=1e-8, max_iter=5000)
    theirs.fit(scaled.numpy(), labels.numpy())
    wanted = theirs.predict_proba(scaled.numpy())
    np.testing.assert_allclose(layer(vectors).softmax(1).numpy(), wanted, atol=1e-3)


def test_rare_classes_weigh_as_much_as_others() -> None:
    labels = torch.tensor([0] * 6 + [1] * 2)
    assert class_weights(labels, 3).tolist() == pytest.approx([8 / 12, 8 / 4, 0])
    assert class_weights(labels, 3)[labels].mean() == pytest.approx(1)


def test_a_constant_feature_gets_no_weight() -> None:
    vectors, labels = blobs(30, 4, 2, 2.0)
    vectors[:, 1] = 7
    layer = fit_linear(vectors, labels, 2, 0.1)
    assert (layer.weight[:, 1] == 0).all()
    assert layer.weight.isfinite().all()


def test_held_out_logits_are_of_probes_without_the_fold() -> None:
    vectors, labels = blobs(40, 6, 2, 1.0)
    folds = torch.arange(40) % 4
    logits = held_out_logits(vectors, labels, 2, folds, 0.1)
    one = fit_linear(vectors[folds != 2], labels[folds != 2], 2, 0.1)
    torch.testing.assert_close(logits[folds == 2], one(vectors[folds == 2]))


@pytest.mark.parametrize("temperature", [0.2, 1.0, 7.0])
def test_the_temperature_that_scores_were_made_with_is_found(temperature: float) -> None:
    generator = torch.Generator().manual_seed(1)
    true = 2 * torch.randn(20_000, 3, generator=generator)
    labels = torch.multinomial(true.softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature(true * temperature, labels) == pytest.approx(temperature, rel=0.05)


def test_a_temperature_has_limits() -> None:
    wrong = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(wrong, torch.tensor([1, 0])) == pytest.approx(LIMITS[1], rel=1e-3)


@pytest.mark.parametrize("count", [2, 20, 2000])
def test_windows_that_are_all_right_prove_no_certainty(count: int) -> None:
    labels = torch.arange(count) % 2
    logits = 5 * torch.nn.functional.one_hot(labels, 2).float()
    score = (logits / fit_temperature(logits, labels)).softmax(1).amax()
    assert score.item() == pytest.approx(1 - 0.5 / (count + 2), rel=1e-3)


def test_labels_that_only_one_fold_has_do_not_count() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    folds = torch.tensor([0, 1, 0, 1, 1, 1])
    assert in_other_folds(labels, folds).tolist() == [True, True, True, True, False, False]
    vectors, labels = blobs(40, 6, 2, 3.0)
    known = choose(data_of({"all": vectors}, labels))
    rare = torch.cat([vectors, torch.randn(5, 6, generator=torch.Generator().manual_seed(3))])
    data = ProbeData(
        {"all": rare}, torch.cat([labels, torch.full((5,), 2)]), torch.arange(45), torch.arange(45) % 5, 3
    )
    data.folds[40:] = 0
    assert choose(data).temperature < 3 * known.temperature


def data_of(vectors: dict[str, torch.Tensor], labels: torch.Tensor) -> ProbeData:
    return ProbeData(vectors, labels, torch.arange(len(labels)) // 2, torch.arange(len(labels)) % 5, 2)


def test_the_vectors_that_tell_classes_apart_are_chosen() -> None:
    useful, labels = blobs(100, 6, 2, 2.0)
    noise = torch.randn(100, 6, generator=torch.Generator().manual_seed(5))
    assert choose(data_of({"noise": noise, "useful": useful}, labels)).vectors == "useful"


def test_an_estimate_on_noise_is_chance_although_the_probe_fits_all_of_it() -> None:
    generator = torch.Generator().manual_seed(2)
    noise, labels = torch.randn(120, 150, generator=generator), torch.arange(120) % 2
    fitted = fit_linear(noise, labels, 2, 0.03)(noise)
    assert (fitted.argmax(1) == labels).float().mean() == 1
    calibrated, _ = estimate(data_of({"noise": noise}, labels))
    assert 0.3 < (calibrated.argmax(1) == labels).float().mean() < 0.7
    # A temperature makes scores as modest as that: between chance and certainty, near to chance.
    assert calibrated.softmax(1).amax(1).mean() < 0.6


def test_logits_of_a_clip_are_the_mean_of_its_windows() -> None:
    logits = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 7.0]])
    means, clips = mean_by_clip(logits, torch.tensor([4, 4, 2]))
    assert clips.tolist() == [2, 4]
    assert means.tolist() == [[5.0, 7.0], [2.0, 0.0]]


BASES: dict[str, Dims] = {
    "vit": CASES["vit"][2],
    "vit with a hidden layer in its head": ViTDims(16, WIDTH, 2, 3, 96, representation_dim=24),
    "torchvision": TorchvisionDims("resnet18", 1),
    "framewise": FramewiseDims(vit=ViTDims(16, WIDTH, 2, 3, 96)),
    "factorised": CASES["factorised"][2],
}


@pytest.mark.parametrize("name", BASES)
@torch.inference_mode()
def test_a_probe_embeds_as_its_base_and_has_the_new_head(name: str) -> None:
    torch.manual_seed(0)
    base = build_model(BASES[name], PREPROCESSING, CLASSES).eval()
    for vectors, dims in probe_dims(BASES[name]).items():
        model = build_probe(dims, BASES[name], base.state_dict(), PREPROCESSING, 2)
        units = random_units(4, 2 if name == "factorised" else 1)
        assert torch.equal(model.encode(units), base.encode(units))
        windows = model.encode(units)[None]
        pooled = model.pool(windows)
        assert pooled.shape[1] == windows.shape[2] * (2 if vectors == "mean and change" else 1)
        layer = torch.nn.Linear(pooled.shape[1], 2)
        set_probe_(model, Probe(vectors, layer), 2.5)
        torch.testing.assert_close(model.classify(windows), layer(pooled) / 2.5)


@pytest.mark.parametrize(
    "dims", [ChannelStackDims(8, 8, WIDTH, 2, 3, 96), TorchvisionDims("mc3_18", 4)], ids=str
)
def test_models_of_whole_clips_are_refused(dims: Dims) -> None:
    with pytest.raises(CannotTrain, match="a probe needs an image model"):
        probe_dims(dims)
