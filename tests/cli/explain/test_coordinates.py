"""A map lies where the model saw it, in the picture as it is shown: turned, cropped, with square pixels."""

import json
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.support import bright_family
from tests.support.videos import render
from tubelet.service.cli.app import app

RATE, SECONDS = 10, 4
STORED = (128, 64)
LIGHT_S = (2.0, 3.0)  # when there is light
LIGHT = (slice(8, 20), slice(70, 82))  # where, in the stored picture: rows, columns
CLIPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "turned": {"rotation": (90, False, False)},
    "turned back": {"rotation": (-90, False, False)},
    "mirrored": {"rotation": (0, True, False)},
    "wide pixels": {"aspect": Fraction(2, 1)},
    "narrow pixels": {"aspect": Fraction(1, 2)},
    "turned wide pixels": {"aspect": Fraction(3, 2), "rotation": (90, False, False)},
}

QUICK, SLOW = "turned wide pixels", pytest.mark.slow


def frame(number: int) -> np.ndarray:
    """Draw a dark picture, with a light for a while."""
    picture = np.full((STORED[1], STORED[0], 3), 40, np.uint8)
    if LIGHT_S[0] <= number / RATE < LIGHT_S[1]:
        picture[LIGHT] = 250
    return picture


def shown_at(path: Path, time_s: float) -> np.ndarray:
    """Return the picture that ffmpeg shows at a time, in square pixels: -> (height, width, 3)."""
    square = "scale=w='if(gt(sar,0),iw*sar,iw)':h=ih:flags=area,setsar=1"
    command = ["ffmpeg", "-v", "error", "-ss", str(time_s), "-i", str(path), "-frames:v", "1"]
    command += ["-vf", square, "-f", "image2pipe", "-c:v", "ppm", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    _, width, height, _ = raw.split(maxsplit=4)[:4]
    size = int(width) * int(height) * 3
    return np.frombuffer(raw[-size:], np.uint8).reshape(int(height), int(width), 3)


def middle(where: np.ndarray) -> tuple[float, float]:
    """Return the middle of what is true, in shares of the picture's width and height."""
    rows, columns = np.nonzero(where)
    return (columns.mean() + 0.5) / where.shape[1], (rows.mean() + 0.5) / where.shape[0]


@pytest.mark.parametrize(
    "name", [name if name == QUICK else pytest.param(name, marks=SLOW) for name in CLIPS]
)
def test_the_map_covers_the_light(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(bright_family.install(tmp_path / "site"))
    bright_family.write_store(tmp_path / "store")
    monkeypatch.setenv("TUBELET_MODELS__STORE", str(tmp_path / "store"))
    lossless = {"crf": "0", "preset": "ultrafast"}
    path = tmp_path / "clip.mp4"
    render(path, RATE * SECONDS, rate=RATE, size=STORED, draw=frame, options=lossless, **CLIPS[name])
    out = tmp_path / "out"
    arguments = ["explain", str(path), "--model", bright_family.NAME, "--label", "bright", "--out", str(out)]
    found = CliRunner().invoke(app, [*arguments, "--json"])
    assert found.exit_code == 0, found.output
    printed = json.loads(found.stdout)
    (light,) = printed["maps"]
    assert light["method"] == "occlusion"
    assert (light["half"]["start_s"], light["half"]["end_s"]) in ((2.0, 2.5), (2.5, 3.0))
    assert printed["notes"][0] == "brightness has no relevance: its family is explained by occlusion"
    assert printed["notes"][1].startswith("there is no heads.png")
    assert not (out / "heads.png").exists()

    expected = middle(shown_at(path, 2.25).max(axis=2) > 150)
    seen = middle(coloured(shown_at(out / "overlay.mp4", 2.25)))
    left, top, right, bottom = light["rectangle"]
    patch = (right - left) / light["columns"], (bottom - top) / light["rows"]
    assert abs(seen[0] - expected[0]) < patch[0]
    assert abs(seen[1] - expected[1]) < patch[1]
    assert not coloured(shown_at(out / "overlay.mp4", 0.75)).any()

    with np.load(out / "maps.npz") as arrays:
        step, row, column = np.unravel_index(arrays["patches"].argmax(), arrays["patches"].shape)
        assert LIGHT_S[0] <= arrays["start_s"][step] < LIGHT_S[1]
    at = left + (column + 0.5) * patch[0], top + (row + 0.5) * patch[1]
    assert abs(at[0] - expected[0]) < patch[0]
    assert abs(at[1] - expected[1]) < patch[1]


def coloured(picture: np.ndarray) -> np.ndarray:
    """Return where a picture, which is grey, has a colour."""
    return np.ptp(picture.astype(int), axis=2) > 30
