"""Clips whose label is how one object moves: the truth they state is what is in the pixels."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tubelet.models.families.divided import Divided, DividedBlock
from tubelet.models.spec import Family
from tubelet.models.training.init import SHIFTS
from tubelet.models.training.moving_objects import DIMS, RECIPE, batches, build, spec_of, start
from tubelet.models.training.simulation.moving_objects import (
    FRAMES,
    LABELS,
    OBJECTS,
    SPAN_FRAMES,
    STEP,
    offsets_of,
    render,
)


def test_every_object_moves_by_one_step_a_frame_and_one_goes_ahead_in_one_span() -> None:
    labels = torch.arange(4).repeat(16)
    span = torch.arange(4).repeat_interleave(16)
    offsets = offsets_of(labels, span, 0.0, torch.Generator().manual_seed(0))
    steps = offsets.diff(dim=1)
    torch.testing.assert_close(steps.norm(dim=-1), torch.full((64, FRAMES - 1, OBJECTS), STEP))
    turns = (steps[:, 1:] * steps[:, :-1]).sum(dim=-1) < 0  # (B, T - 2, M)
    assert turns[:, :, 1:].all()
    for clip in range(64):
        onward = {int(frame) + 1 for frame in (~turns[clip, :, 0]).nonzero()[:, 0]}
        first = int(span[clip]) * SPAN_FRAMES
        # Two steps ahead within the span; on the way into it and out of it, one step more on the way back.
        wanted = {first - 1, first + 1, first + 2, first + SPAN_FRAMES}
        assert onward == {frame for frame in wanted if 0 < frame < FRAMES - 1}
        x, y = steps[clip, first, 0].tolist()
        direction = {(-1, 0): "left", (1, 0): "right", (0, -1): "up", (0, 1): "down"}
        assert direction[round(x / STEP), round(y / STEP)] == LABELS[labels[clip]]


def test_pixels_follow_the_object_where_and_when_the_truth_says() -> None:
    clips = render(64, torch.Generator().manual_seed(1))
    assert clips.pixels.shape == (64, FRAMES, 48, 48, 3)
    for pixels, span, place in zip(clips.pixels, clips.span, clips.place, strict=True):
        frames = pixels.double()[int(span) * SPAN_FRAMES :][:SPAN_FRAMES]
        # Objects that step back and forth are back after two frames; the one that decides is not.
        change = (frames[2] - frames[0]).abs().mean(dim=-1)
        assert 50 < int(place.sum()) < 250
        assert change[place].mean() > 5 * change[~place].mean() or change[place].mean() > 4
    assert set(clips.labels.tolist()) == set(range(len(LABELS)))


def test_a_batch_depends_on_its_number_alone_and_later_ones_are_harder() -> None:
    data = batches("factorised", replace(RECIPE, steps=10, batch_size=64))
    first, again, last = data[0], data[0], data[9]
    assert torch.equal(first.units, again.units)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.units, last.units)
    with pytest.raises(IndexError):
        data[10]


@pytest.mark.parametrize("family", DIMS)
def test_each_family_learns_on_its_clips(family: Family) -> None:
    spec, recipe = spec_of(family), replace(RECIPE, steps=2, batch_size=4)
    trainer = start(family, recipe)
    data = batches(family, recipe)
    assert data[0].units.shape[1:3] == (spec.sampling.units_per_window, spec.sampling.frames_per_unit)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    for step in range(2):
        trainer.train_step(data[step])
    after = trainer.model.state_dict()
    assert not any(torch.equal(after[name], before[name]) for name in before if name.endswith("qkv.weight"))


def test_the_first_heads_over_time_of_a_divided_model_look_at_other_frames() -> None:
    model = build("divided")
    assert isinstance(model, Divided)
    seen = []

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        seen.append((queries @ keys.mT / queries.shape[-1] ** 0.5).softmax(dim=-1))
        return torch.nn.functional.scaled_dot_product_attention(queries, keys, values)

    clips = render(2, torch.Generator().manual_seed(2))
    block = model.blocks[0]
    assert isinstance(block, DividedBlock)
    block.temporal_attn.attend = attend
    block(*model.embed(clips.pixels))
    shares = seen[0].mean(dim=0)  # (A, T, T), over tracks
    for shift, of_head in zip(SHIFTS, shares, strict=True):
        near = torch.arange(2, FRAMES - 2)
        there, mirrored = of_head[near, near + shift], of_head[near, near - shift]
        assert there.mean() > 3 / FRAMES
        assert (there > mirrored).all()
