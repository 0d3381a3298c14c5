"""Tests of the event files of a training, read by TensorBoard itself."""

from pathlib import Path

import pytest

from tubelet.models.training.fine_tuning import EpochFigures
from tubelet.service.cli.train.levels.events import events_in, remove_events

pytest.importorskip("tensorboard", reason="tensorboard is not installed")


def test_tensorboard_reads_the_figures_of_all_epochs(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    other = tmp_path / "epochs.jsonl"
    other.write_text("")
    losses = [0.75, 0.5, 0.25]
    with events_in(tmp_path, "accuracy") as add:
        for epoch, loss in enumerate(losses, 1):
            add(EpochFigures(epoch, loss, 0.5, loss / 2, 0.625, 10.0))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    training, validation = events.Scalars("loss/training"), events.Scalars("loss/validation")
    assert [(each.step, each.value) for each in training] == list(enumerate(losses, 1))
    assert [each.value for each in validation] == [loss / 2 for loss in losses]
    assert [each.value for each in events.Scalars("accuracy/validation")] == [0.625] * 3
    remove_events(tmp_path)
    assert list(tmp_path.iterdir()) == [other]
