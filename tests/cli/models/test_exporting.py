"""``tubelet models export``: the file, what is printed, and what is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner, Result

from tubelet.models.checkpoints.onnx_export import TOLERANCE
from tubelet.models.repository.fingerprint import fixed_clip, relative_difference
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.service.cli.app import app


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["models", "export", *map(str, arguments)])


def test_an_exported_model_has_the_logits_of_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "motion.onnx"
    done = export("camera-motion-stack", "--onnx", file, "--json")
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["shapes"] == {"frames": ["windows", 16, 48, 48, 3], "logits": ["windows", 10]}
    assert said["apart"] <= TOLERANCE
    entry = ModelStore(ZOO).find("camera-motion-stack")
    clip = fixed_clip(entry.spec.preprocessing, entry.spec.sampling).flatten(0, 1)[None].numpy()
    (logits,) = onnxruntime.InferenceSession(file).run(["logits"], {"frames": clip})
    found = tuple(np.asarray(logits)[0].tolist())
    assert relative_difference(found, entry.logits) <= TOLERANCE

    taken = export("camera-motion-stack", "--onnx", file)
    assert (taken.exit_code, taken.stderr) == (1, f"{file} exists: choose another name, or give --replace\n")


def test_what_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = export("nothing", "--onnx", tmp_path / "m.onnx")
    assert (done.exit_code, done.stderr[:31]) == (1, "no model 'nothing' in the store")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    done = export("camera-motion", "--onnx", tmp_path / "m.onnx")
    assert (done.exit_code, done.stderr) == (
        1,
        "ONNX needs onnxruntime and onnxscript: pip install 'tubelet[onnx]'\n",
    )
    assert not list(tmp_path.iterdir())
