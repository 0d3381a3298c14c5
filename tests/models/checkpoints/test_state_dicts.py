"""State dicts of fine-tuned models: imported with their library's logits, and errors that say what fits."""

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import transformers
from torch import nn
from typer.testing import CliRunner

from tests.support.checkpoints import CASES, COMMON, VIDEO
from tubelet.models.checkpoints.importer import read_source, store_model
from tubelet.models.checkpoints.torchvision_heads import of_inner_model
from tubelet.models.errors import CannotImport
from tubelet.models.families.registry import build_on_meta
from tubelet.models.families.torchvision import TorchvisionDims, head_of
from tubelet.models.repository.repository import ModelStore
from tubelet.models.spec import Preprocessing
from tubelet.service.cli.app import app

hf: Any = transformers
zoo: Any = torchvision.models
LABELS = tuple("abcde")


def fine_tuned(name: str, change: Callable[[Any], None] | None = None) -> Any:
    """A random model of torchvision with a head of five classes."""
    torch.manual_seed(0)
    if name == "vit_b_16":  # its sizes are those of the parameters
        return zoo.VisionTransformer(224, 16, 2, 2, 128, 256, num_classes=len(LABELS)).eval()
    options = {"transform_input": True} if name in ("googlenet", "inception_v3") else {}
    model = zoo.get_model(name, weights=None, num_classes=len(LABELS), **options)
    if change is not None:
        change(model)
    return model.eval()


def dropout_and_linear(model: Any) -> None:
    model.fc = nn.Sequential(nn.Dropout(0.5), nn.Linear(model.fc.in_features, len(LABELS)))


def linear_alone(model: Any) -> None:
    model.classifier = nn.Linear(model.classifier[-1].in_features, len(LABELS))


def other_training_head(model: Any) -> None:
    """As torchvision's tutorial on fine-tuning, but the auxiliary head keeps its classes."""
    model.AuxLogits.fc = nn.Linear(768, 1000)


def no_training_heads(model: Any) -> None:
    model.aux1 = model.aux2 = None


TUNED: dict[str, tuple[str, Callable[[Any], None] | None]] = {
    "r3d_18": ("r3d_18", dropout_and_linear),
    "mobilenet_v2": ("mobilenet_v2", linear_alone),
    "squeezenet1_1": ("squeezenet1_1", None),
    "googlenet": ("googlenet", no_training_heads),
    "inception_v3": ("inception_v3", other_training_head),
    "vit_b_16": ("vit_b_16", None),
}


@pytest.mark.parametrize("case", TUNED)
@torch.inference_mode()
def test_a_fine_tuned_models_logits_equal_torchvisions(tmp_path: Path, case: str) -> None:
    name, change = TUNED[case]
    theirs = fine_tuned(name, change)
    for module in theirs.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.05)
    torch.save({"model_state_dict": nn.DataParallel(theirs).state_dict()}, tmp_path / "mine.pth")
    foreign = read_source(f"torchvision:{name}", labels=LABELS, weights=tmp_path / "mine.pth")
    preset = zoo.get_model_weights(name)["DEFAULT"].transforms()
    assert "DEFAULT" not in foreign.warnings[0]
    assert zoo.get_model_weights(name)["DEFAULT"].name in foreign.warnings[0]
    assert (foreign.licence, foreign.accuracy) == ("unknown", ())
    store_model(foreign, tmp_path / "store", "mine", "1")
    entry = ModelStore(tmp_path / "store").find("mine")
    assert entry.spec.labels == LABELS
    size, sampling = entry.spec.preprocessing, entry.spec.sampling
    units = torch.randint(
        0, 256, (1, sampling.frames_per_unit, size.height, size.width, 3), dtype=torch.uint8
    )
    pixels = (units.float() / 255 - torch.tensor(preset.mean)) / torch.tensor(preset.std)
    is_video = sampling.frames_per_unit > 1
    shown = pixels.permute(0, 4, 1, 2, 3) if is_video else pixels[:, 0].permute(0, 3, 1, 2)
    found = entry.load()(units[:, None])
    wanted = theirs(shown)
    # Random weights make logits of any size.
    torch.testing.assert_close(found, wanted, atol=3e-5 * float(wanted.abs().max()), rtol=0)


# One of each family; the largest sizes take long to build.
ARCHITECTURES = (
    *(
        "alexnet",
        "vgg11",
        "densenet121",
        "convnext_tiny",
        "efficientnet_b0",
        "efficientnet_v2_s",
        "mnasnet0_5",
    ),
    *("mobilenet_v2", "mobilenet_v3_small", "maxvit_t", "regnet_x_400mf", "resnet18", "resnext50_32x4d"),
    *("wide_resnet50_2", "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "swin_v2_t", "googlenet"),
    *("inception_v3", "mc3_18", "mvit_v1_b", "mvit_v2_s", "r2plus1d_18", "r3d_18", "s3d", "swin3d_t"),
)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_head_is_as_large_as_the_labels(name: str) -> None:
    half = (0.5, 0.5, 0.5)
    preprocessing = Preprocessing(32, 32, "crop", half, half)
    outline = build_on_meta(TorchvisionDims(name, 16), preprocessing, 7)
    assert outline.state_dict()[f"net.{head_of(name)}.weight"].shape[0] == 7


def test_a_model_is_found_within_what_trained_it(tmp_path: Path) -> None:
    state = fine_tuned("resnet18").state_dict()
    module = {f"backbone.{key}": value for key, value in state.items()} | {"criterion.weight": torch.ones(5)}
    torch.save({"state_dict": module, "hyper_parameters": Namespace(lr=0.1)}, tmp_path / "last.ckpt")
    foreign = read_source("torchvision:resnet18", labels=LABELS, weights=tmp_path / "last.ckpt")
    alone = read_source("torchvision:resnet18", labels=LABELS, weights=save_random(tmp_path, state))
    assert foreign.state.keys() == alone.state.keys()
    assert all(torch.equal(foreign.state[key], alone.state[key]) for key in alone.state)
    assert foreign.warnings[1] == "not of the model, and left out: criterion.weight"
    assert len(alone.warnings) == 1


def test_a_head_for_training_is_not_the_model() -> None:
    state = {"AuxLogits.fc.weight": torch.ones(5, 2), "fc.1.weight": torch.ones(5, 2)}
    assert of_inner_model(state, "inception_v3") == (state, ())


def test_a_vit_gets_the_preprocessing_of_weights_of_its_size(tmp_path: Path) -> None:
    vit = zoo.VisionTransformer(384, 16, 1, 1, 64, 64, num_classes=5)
    torch.save(vit.state_dict(), tmp_path / "mine.pth")
    foreign = read_source("torchvision:vit_b_16", labels=LABELS, weights=tmp_path / "mine.pth")
    assert foreign.preprocessing.height == 384
    assert "IMAGENET1K_SWAG_E2E_V1" in foreign.warnings[0]


def test_the_command_imports_a_fine_tuned_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(fine_tuned("resnet18").state_dict(), tmp_path / "My ResNet.pth")
    (tmp_path / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    command = ["models", "import", "torchvision:resnet18", "--weights", str(tmp_path / "My ResNet.pth")]
    monkeypatch.setenv("TUBELET_MODELS__STORE", str(tmp_path / "store"))
    done = CliRunner().invoke(app, [*command, "--labels", str(tmp_path / "labels.txt"), "--json"])
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["model"], report["labels"]) == ("my-resnet", list(LABELS))
    assert (report["source"], report["revision"]) == ("torchvision:resnet18", "My ResNet.pth")
    assert "preprocessing" in report["warnings"][0]
    assert "preprocessing" in done.stderr


def test_a_state_dict_may_be_of_a_multi_label_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One label, which no config calls one of several."""
    torch.save(zoo.resnet18(num_classes=1).state_dict(), tmp_path / "alarm.pth")
    (tmp_path / "labels.txt").write_text("alarm\n")
    command = ["models", "import", "torchvision:resnet18", "--weights", str(tmp_path / "alarm.pth")]
    command += ["--labels", str(tmp_path / "labels.txt"), "--json"]
    monkeypatch.setenv("TUBELET_MODELS__STORE", str(tmp_path / "store"))
    refused = CliRunner().invoke(app, command)
    assert "one logit" in refused.stderr
    assert "give --activation sigmoid" in refused.stderr
    assert CliRunner().invoke(app, [*command, "--activation", "relu"]).exit_code == 2
    done = CliRunner().invoke(app, [*command, "--activation", "sigmoid"])
    assert json.loads(done.stdout)["activation"] == "sigmoid"


def save_random(folder: Path, state: dict[str, torch.Tensor]) -> Path:
    torch.save(state, folder / "mine.pth")
    return folder / "mine.pth"


@pytest.mark.parametrize(
    ("change", "labels", "says"),
    [
        (None, None, "the model has 5 logits, but there are no labels; see --labels"),
        (None, tuple("abc"), "the model has 5 logits, but there are 3 labels"),
        (
            lambda state: _replaced(state, "fc.weight", None),
            LABELS,
            "has no head: a resnet18 ends in fc",
        ),
        (
            lambda state: (
                _replaced(state, "fc.weight", None)
                | {"fc.0.weight": torch.ones(9, 512), "fc.2.weight": torch.ones(5, 9)}
            ),
            LABELS,
            r"a head of several layers \(fc.0, fc.2\), torchvision's resnet18 has one, fc",
        ),
        (lambda state: _replaced(state, "bn1.weight", None), LABELS, "1 missing, such as net.bn1.weight"),
    ],
)
def test_a_head_or_labels_that_do_not_fit_are_named(
    tmp_path: Path, change: Callable[[Any], Any] | None, labels: tuple[str, ...] | None, says: str
) -> None:
    state = fine_tuned("resnet18").state_dict()
    file = save_random(tmp_path, state if change is None else change(state))
    with pytest.raises(CannotImport, match=says):
        store_model(
            read_source("torchvision:resnet18", labels=labels, weights=file), tmp_path / "store", "mine", "1"
        )
    assert not (tmp_path / "store").exists()


def _replaced(state: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    others = {key: each for key, each in state.items() if key != name}
    return others if value is None else others | {name: value}


def test_sources_that_take_weights_are_named(tmp_path: Path) -> None:
    file = save_random(tmp_path, fine_tuned("r3d_18").state_dict())
    with pytest.raises(CannotImport, match=r"with stem.0.weight.*torchvision:NAME --weights .*mine.pth"):
        read_source(str(file))
    with pytest.raises(CannotImport, match=r"--weights goes with torchvision:NAME, not with .*; NAME is"):
        read_source(str(tmp_path), weights=file)


@pytest.mark.parametrize("kind", ["vit", "videomae", "vjepa2"])
def test_a_backbone_says_what_it_needs(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    model, processor = (build() for build in CASES[kind])
    backbone = {
        "vit": lambda: hf.ViTModel(hf.ViTConfig(**COMMON, patch_size=8)),
        "videomae": lambda: hf.VideoMAEModel(hf.VideoMAEConfig(**VIDEO, tubelet_size=2, patch_size=8)),
        "vjepa2": lambda: hf.VJEPA2Model(model.config),
    }[kind]()
    backbone.save_pretrained(tmp_path / "theirs")
    processor.save_pretrained(tmp_path / "theirs")
    says = {"vit": "--inflate-to factorised --labels FILE starts a video model"}.get(
        kind, "once it is fine-tuned"
    )
    with pytest.raises(CannotImport, match=f"has no head.* it is a backbone: .*{says}"):
        store_model(
            read_source(str(tmp_path / "theirs"), labels=tuple("abcdefg")), tmp_path / "store", "theirs", "1"
        )
