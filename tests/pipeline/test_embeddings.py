"""Vectors of windows become parts of embeddings."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from tubelet.models.repository.repository import ModelStore
from tubelet.service.engine.batch_tuner import BatchTuning
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.errors import MalformedOption
from tubelet.service.pipeline import embeddings as embeddings_module
from tubelet.service.pipeline.embeddings import EmbeddingCollector, check_embeddings
from tubelet.service.pipeline.windows import ClassifiedWindow
from tubelet.service.types.embeddings import EmbeddingLevel, Embeddings, join
from tubelet.service.types.plan import Plan, SamplingGrid
from tubelet.service.types.request import Options

SPEC = ModelStore().find("camera-motion").spec
UNIT, WINDOW, VIDEO = EmbeddingLevel.UNIT, EmbeddingLevel.WINDOW, EmbeddingLevel.VIDEO
UNIT_OPTIONS = Options(embeddings=UNIT)


@pytest.fixture
def model() -> ServedModel:
    return ServedModel(SPEC, (), precision="fp32", fingerprint="", tuning=BatchTuning(1), max_batch_windows=1)


def plan(end_ns: int) -> Plan:
    """Return a plan with units of 10 ns and windows of 4 units every 2 units."""
    return Plan((SamplingGrid(5, 5 + end_ns, 40, 1, 4, 2),))


def collect(model: ServedModel, options: Options, windows: list[ClassifiedWindow]) -> list[Embeddings]:
    collector = EmbeddingCollector(options, model)
    collector.use_plan(plan(90))
    return [part for window in windows for part in collector.add(window)] + list(collector.finish())


def windows_of_units(width: int = 2) -> Iterator[ClassifiedWindow]:
    """Yield the three windows of 9 units; the vector of each unit is filled with its number."""
    for window, new_units in enumerate((range(4), range(4, 6), range(6, 8), range(8, 9))):
        vectors = [torch.full((width,), float(unit), dtype=torch.bfloat16) for unit in new_units]
        yield ClassifiedWindow(0, window, 0, None, new_units, vectors)


def test_units_have_their_own_times(model: ServedModel) -> None:
    found = join(collect(model, UNIT_OPTIONS, [*windows_of_units()]))
    assert found is not None
    np.testing.assert_array_equal(found.vectors, np.repeat(np.arange(9.0)[:, None], 2, axis=1))
    assert found.vectors.dtype == np.float32
    assert found.start_ns.tolist() == [5 + 10 * unit for unit in range(9)]
    assert found.end_ns.tolist() == [15 + 10 * unit for unit in range(9)]


def test_windows_have_theirs_and_the_video_is_their_mean(model: ServedModel) -> None:
    vectors = np.array([[3, 4], [0, 0], [-6, 8], [1, 0]], np.float32)
    given = [ClassifiedWindow(0, window, 0, None, range(0), (row,)) for window, row in enumerate(vectors)]
    (found,) = collect(model, Options(embeddings=WINDOW, normalise_embeddings=True), given)
    np.testing.assert_allclose(found.vectors, [[0.6, 0.8], [0, 0], [-0.6, 0.8], [1, 0]], atol=1e-6)
    assert found.start_ns.tolist() == [5, 25, 45, 55]  # the last one ends with the range
    assert found.end_ns.tolist() == [45, 65, 85, 95]
    (video,) = collect(model, Options(embeddings=VIDEO), given)
    np.testing.assert_allclose(video.vectors, [[-0.5, 3]])
    assert (video.start_ns.tolist(), video.end_ns.tolist()) == ([5], [95])
    (unit_length,) = collect(model, Options(embeddings=VIDEO, normalise_embeddings=True), given)
    np.testing.assert_allclose(unit_length.vectors, video.vectors / np.sqrt(9.25), rtol=1e-6)


def test_a_part_has_no_more_than_its_limit_or_one_vector(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings_module, "_PART_INTERVAL_S", 1e9)
    for limit, wanted in ((8 * 3, [3, 3, 3]), (8 * 4 + 7, [4, 4, 1]), (1, [1] * 9), (1 << 20, [9])):
        monkeypatch.setattr(embeddings_module, "_PART_BYTES", limit)
        assert [len(part) for part in collect(model, UNIT_OPTIONS, [*windows_of_units()])] == wanted
    monkeypatch.setattr(embeddings_module, "_PART_BYTES", 8 * 4)
    half = replace(UNIT_OPTIONS, embedding_dtype="float16")
    assert [len(part) for part in collect(model, half, [*windows_of_units()])] == [8, 1]


def test_a_live_stream_gets_its_vectors_before_a_part_is_full(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings_module, "_PART_INTERVAL_S", 0.0)
    parts = collect(model, UNIT_OPTIONS, [*windows_of_units()])
    assert [len(part) for part in parts] == [4, 2, 2, 1]


def test_numbers_beyond_float16_become_its_largest(model: ServedModel) -> None:
    row = np.array([1e6, -1e6, 0.1], np.float32)
    options = Options(embeddings=WINDOW, embedding_dtype="float16")
    (found,) = collect(model, options, [ClassifiedWindow(0, 0, 0, None, range(0), (row,))])
    assert found.vectors.tolist() == [[65504, -65504, np.float16(0.1)]]


def test_units_that_are_no_vectors_are_refused_with_their_shape(model: ServedModel) -> None:
    check_embeddings(UNIT_OPTIONS, model)
    model.unit_shape = (160,)
    check_embeddings(UNIT_OPTIONS, model)
    model.unit_shape = (8, 160)
    with pytest.raises(MalformedOption, match="embeds a unit as 8 x 160 numbers, not as one vector"):
        check_embeddings(UNIT_OPTIONS, model)
    check_embeddings(Options(embeddings=WINDOW), model)
    wrong = Options(embeddings=WINDOW, embedding_dtype="float64")  # pyright: ignore[reportArgumentType]
    with pytest.raises(MalformedOption, match="it must be float32 or float16"):
        check_embeddings(wrong, model)
