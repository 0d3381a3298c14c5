"""``tubelet models remove``: a version leaves the store at once, or stays whole."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.support.cli_process import TUBELET
from tubelet.models.errors import CannotRemove
from tubelet.models.repository.removal import remove_version, stored_versions
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.service.cli.app import app


def put(store: Path, name: str, version: str, folder: Path | None = None) -> Path:
    """Copy the embedded default model into the store under another name and version."""
    folder = folder or store / name / version
    shutil.copytree(ZOO / "camera-motion", folder, dirs_exist_ok=True)
    spec = re.sub(r'(?m)^version = ".*"', f'version = "{version}"', (folder / "model.toml").read_text())
    (folder / "model.toml").write_text(re.sub(r'(?m)^name = ".*"', f'name = "{name}"', spec))
    return folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """It has vit 1 and vit 2."""
    root = tmp_path / "store"
    for version in ("1", "2"):
        put(root, "vit", version)
    monkeypatch.setenv("TUBELET_MODELS__STORE", str(root))
    return root


def remove(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", "remove", *arguments])


def versions(store: Path) -> list[str]:
    return [f"{spec.name}:{spec.version}" for spec in ModelStore(store).specs()]


def test_a_version_is_removed_and_said(store: Path) -> None:
    files = [file.stat().st_size for file in (store / "vit" / "1").iterdir()]
    done = remove("vit:1", "--yes", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "model": "vit",
        "version": "1",
        "folder": str(store / "vit" / "1"),
        "bytes": sum(files),
        "removed": True,
        "warnings": [],
    }
    assert versions(store) == ["vit:2"]
    assert remove("vit", "--yes").stdout.startswith("removed vit:2, ")
    assert list(store.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("vit", "--yes"), "vit has 2 versions in STORE: vit:1, vit:2; name one, or add --all-versions"),
        (("vit:3", "--yes"), "no model 'vit:3' in the store; it has vit:1, vit:2"),
        (("nobody", "--yes"), "no model 'nobody' in the store"),
        (("camera-motion", "--yes"), "camera-motion comes with tubelet and cannot be removed"),
        (("vit:1",), "nothing was removed: without a terminal, confirm with --yes"),
    ],
)
def test_what_is_not_clear_removes_nothing(store: Path, arguments: tuple[str, ...], says: str) -> None:
    done = remove(*arguments)
    assert done.exit_code == 1
    assert says.replace("STORE", str(store)) in done.stderr
    assert versions(store) == ["vit:1", "vit:2"]


@pytest.mark.parametrize(("typed", "left"), [(b"y\n", ["vit:2"]), (b"n\n", ["vit:1", "vit:2"])])
def test_a_terminal_is_asked(store: Path, typed: bytes, left: list[str]) -> None:
    terminal, stdin = os.openpty()
    os.write(terminal, typed)
    done = subprocess.run(
        [TUBELET, "models", "remove", "vit:1"], stdin=stdin, capture_output=True, text=True, timeout=100
    )
    os.close(terminal)
    os.close(stdin)
    assert "Remove vit:1 (" in done.stderr
    assert done.returncode == (1 if left == ["vit:1", "vit:2"] else 0)
    assert versions(store) == left


def test_all_versions(store: Path) -> None:
    assert remove("vit:1", "--all-versions", "--yes").exit_code == 2
    put(store, "other", "1")
    done = remove("vit", "--all-versions", "--yes")
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == ["removed vit:1", "removed vit:2"]
    assert versions(store) == ["other:1"]


def test_a_broken_version_can_be_removed_too(store: Path) -> None:
    (store / "vit" / "1" / "model.toml").write_text("half written")
    assert remove("vit:1", "--yes").exit_code == 0
    assert not (store / "vit" / "1").exists()


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"TUBELET_MODELS__DEFAULT": "vit:1"}, "models.default is 'vit:1', which will not exist"),
        ({"TUBELET_MODELS__LOAD": '["vit:1", "vit"]'}, "models.load names 'vit:1', which will not exist"),
        ({"TUBELET_MODELS__DEFAULT": "vit"}, ""),
    ],
)
def test_removing_a_configured_model_warns(
    store: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], says: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = remove("vit:1", "--yes", "--json")
    assert done.exit_code == 0
    warnings = json.loads(done.stdout)["warnings"]
    assert len(warnings) == bool(says)
    assert all(warning.startswith(says) and warning in done.stderr for warning in warnings)


def test_a_folder_with_other_versions_is_not_removed(store: Path) -> None:
    put(store, "vit", "0", folder=store / "vit")
    done = remove("vit:0", "--yes")
    assert done.exit_code == 1
    assert "also holds other versions, such as" in done.stderr
    assert versions(store) == ["vit:0", "vit:1", "vit:2"]


def test_a_failed_removal_leaves_the_folder_complete(store: Path) -> None:
    """A folder that is gone in the meantime stands for any the file system does not rename."""
    (version, _) = stored_versions(store, "vit")
    shutil.rmtree(version.folder)
    with pytest.raises(CannotRemove, match="cannot be removed: No such file or directory"):
        remove_version(version, store)
    assert versions(store) == ["vit:2"]
