"""Clips to train on, and where the models go."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.sample_clip import town
from tests.support.videos import render

SCENES, FRAMES = 5, 12


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders: the camera pans, or stands still, over five towns."""
    folder = tmp_path_factory.mktemp("clips")
    for scene in range(SCENES):
        picture = np.asarray(town(480, 300, seed=scene))
        for label, step in (("pans", 14), ("stands", 0)):
            (folder / label).mkdir(exist_ok=True)

            def draw(number: int, picture: np.ndarray = picture, step: int = step) -> np.ndarray:
                left = 20 + step * number
                return picture[100:220, left : left + 200].copy()

            render(folder / label / f"{scene}.mp4", FRAMES, size=(200, 120), draw=draw)
    return folder


@pytest.fixture(scope="session")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of embeddings, which the tests share: each model embeds the clips once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def store(tmp_path: Path, embeddings: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store of models, the cache of embeddings, and no trainings."""
    monkeypatch.setenv("TUBELET_MODELS__STORE", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(embeddings))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TUBELET_DECODE__WORKERS", "2")
    return tmp_path / "store"


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, here and in processes that a test starts: other threads round otherwise."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
