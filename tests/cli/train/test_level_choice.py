"""The level that is trained where none is named: by the base, the time, and the losses of two models."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from tests.support import stored_models
from tests.support.models import CASES
from tests.support.train_fields import documented
from tubelet.models.families.factorised import Factorised
from tubelet.models.repository.model_folder import write_folder
from tubelet.models.repository.repository import ZOO, ModelStore
from tubelet.service.cli.app import app
from tubelet.service.cli.train.base import Base, untrained
from tubelet.service.cli.train.level_choice import choose_level, keep_better
from tubelet.service.cli.train.new_model import Answers, Level, Recipe, Request, Trained

REQUEST = Request(Path("clips"), "m", "1", None, None, replace=False, chooses_level=True)


def base(name: str) -> Base:
    """Return a base of a kind."""
    if name == "random":
        return untrained("r2plus1d", "")
    if name == "framewise":  # with a temporal transformer
        return replace(ModelStore(ZOO).find("camera-motion"), dims=CASES["framewise"][2])
    return ModelStore(ZOO).find(name)


@pytest.mark.parametrize(
    ("name", "limits", "levels", "says"),
    [
        ("camera-motion", {}, ("probe", None), "level probe, since no time was given"),
        ("camera-motion", {"minutes": 3.0}, ("probe", "temporal"), "the one that is better on clips"),
        ("camera-motion", {"epochs": 3}, ("probe", "temporal"), "the one that is better on clips"),
        ("framewise", {}, ("temporal", None), "has a temporal transformer"),
        ("camera-motion-stack", {"epochs": 3}, ("full", None), "is of the family channel_stack"),
        ("random", {}, ("full", None), "random weights know nothing"),
    ],
)
def test_the_level_follows_from_the_base_and_the_limits(
    name: str, limits: dict[str, Any], levels: tuple[Level, Level | None], says: str
) -> None:
    chosen = choose_level(replace(REQUEST, **limits), base(name))
    assert (chosen.level, chosen.rival) == levels
    assert says in chosen.reason


def test_a_named_level_stays() -> None:
    named = replace(REQUEST, level="full", chooses_level=False, epochs=3)
    assert choose_level(named, base("camera-motion")) == named


def trained(level: Level, logits: torch.Tensor, labels: torch.Tensor) -> Trained:
    """Return a model that was validated, and held out, on the first half of the clips; two windows each."""
    twice = torch.arange(len(labels)).repeat_interleave(2)
    answers = Answers(logits[twice], logits[twice], labels[twice], twice)
    clips = tuple(range(len(labels)))
    return Trained(
        stored_models.model(),
        stored_models.DIMS,
        ("a", "b"),
        clips,
        1.0,
        Recipe(level, level, "clips", {"mine": level}),
        answers,
        None,
        clips[: len(clips) // 2],
        None if level == "probe" else answers,
    )


@pytest.mark.parametrize("is_multilabel", [False, True])
@pytest.mark.parametrize(
    ("strength", "wanted", "says"),
    [
        (0.5, "probe", ""),
        (1.1, "probe", ", so it may be chance"),
        (3.0, "temporal", "; the difference of "),
    ],
)
def test_the_rival_is_kept_where_it_is_better_by_more_than_chance(
    strength: float, wanted: Level, says: str, is_multilabel: bool
) -> None:
    draw = torch.Generator().manual_seed(0)
    classes = torch.arange(40) % 2
    truth = torch.nn.functional.one_hot(classes).float()
    noise, other = torch.randn(2, 40, 2, generator=draw)
    labels = truth if is_multilabel else classes
    probe = trained("probe", 2 * truth - 1 + noise, labels)
    rival = trained("temporal", strength * (2 * truth - 1) + other, labels)
    kept = keep_better(probe, rival, np.arange(40) // 2)
    compared = kept.recipe.details["levels_compared"]
    assert (kept.recipe.level, kept.recipe.details["mine"]) == (wanted, wanted)
    assert (compared["probe"] - compared["temporal"] > compared["standard_error"]) == (wanted == "temporal")
    half = trained("probe", 2 * truth - 1 + noise, labels).held_out.calibrated[:40]
    loss = (
        torch.nn.functional.binary_cross_entropy_with_logits(half, truth[:20].repeat_interleave(2, 0))
        if is_multilabel
        else torch.nn.functional.cross_entropy(half, classes[:20].repeat_interleave(2))
    )
    assert compared["probe"] == pytest.approx(loss.item(), rel=1e-5)
    (reason,) = kept.recipe.reasons
    assert reason.startswith(f"the level {wanted} is taken, not the level ")
    assert "on 20 validation clips" in reason
    assert says in reason


def train(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def both_levels(clips: Path, out: Path) -> tuple[str | Path, ...]:
    """Return the arguments that train both levels for two epochs in the folder ``out``."""
    return (clips, "--name", "m", "--epochs", "2", "--from", "camera-motion", "--out", out, "--json")


def test_with_epochs_both_levels_are_trained(clips: Path, store: Path, tmp_path: Path) -> None:
    done = train(*both_levels(clips, tmp_path / "run"))
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert "levels probe and temporal: " in done.stderr
    assert "level temporal: 2 epochs" in done.stderr
    compared = said["levels_compared"]
    kind = "probes" if said["level"] == "probe" else "epochs"
    assert set(said) == documented("object", "models", "two levels", kind)
    is_gain = compared["probe"] - compared["temporal"] > compared["standard_error"]
    assert said["level"] == ("temporal" if is_gain else "probe")
    reason = said["reasons"][0]
    assert reason.startswith(f"the level {said['level']} is taken")
    entry = ModelStore(store).find("m")
    assert entry.spec.provenance is not None
    assert entry.spec.provenance.source == f"tubelet train, {said['level']} on camera-motion 1.2.0"
    assert f"- Choice: {reason}" in (entry.folder / "CARD.md").read_text()
    assert reason[1:] in (tmp_path / "run" / "report.html").read_text()
    plan = json.loads((tmp_path / "run" / "training.json").read_text())
    assert (plan["level"], plan["finished"]) == ("probe or temporal", True)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_resumed_training_chooses_as_before(clips: Path, store: Path, tmp_path: Path) -> None:
    options = both_levels(clips, tmp_path / "run")
    done = train(*options)
    assert done.exit_code == 0, done.stderr
    plan = json.loads((tmp_path / "run" / "training.json").read_text())
    del plan["finished"]  # as if it was killed before the model was stored
    (tmp_path / "run" / "training.json").write_text(json.dumps(plan))
    other = train(*options, "--level", "temporal", "--resume", "--replace")
    assert "was started with level probe or temporal, now it is temporal" in other.stderr
    again = train(*options, "--resume", "--replace")
    assert again.exit_code == 0, again.stderr
    assert "resumed after" in again.stderr
    assert json.loads(again.stdout)["levels_compared"] == json.loads(done.stdout)["levels_compared"]


def test_too_few_scenes_for_the_rival_leave_the_probe(clips: Path, store: Path, tmp_path: Path) -> None:
    lines = [f"{clips}/pans/0.mp4,pans", f"{clips}/pans/1.mp4,pans", f"{clips}/stands/2.mp4,stands"]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    options = ("--name", "few", "--from", "camera-motion", "--epochs", "1", "--json")
    done = train(tmp_path / "clips.csv", *options)
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["level"] == "probe"
    assert said["reasons"][0].startswith("the level probe is taken, not the level temporal: with some scenes")


def test_a_rival_that_diverges_leaves_the_probe(clips: Path, store: Path, tmp_path: Path) -> None:
    entry = ModelStore().find("camera-motion")
    model = entry.load()
    assert isinstance(model, Factorised)
    with torch.no_grad():
        model.temporal.norm.weight.mul_(
            1e30
        )  # the gradient of any head on it overflows; a probe knows units alone
    spec = replace(entry.spec, name="sick", version="1", accuracy=())
    write_folder(store / "sick" / "1", spec, entry.dims, model, "card")
    options = ("--name", "m", "--from", "sick", "--epochs", "1", "--json")
    done = train(clips, *options)
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["level"] == "probe"
    assert said["reasons"][0].startswith("the level probe is taken, not the level temporal: the ")
    assert ModelStore(store).find("m").spec.labels == ("pans", "stands")


def test_a_note_names_the_columns_that_nothing_is_read_from(clips: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text(f"path,label,who\n{clips}/pans/0.mp4,pans,me\n")
    done = train(tmp_path / "clips.csv", "--name", "m")
    assert "nothing is read from the columns who; known are path, label, start, end, group" in done.stderr
