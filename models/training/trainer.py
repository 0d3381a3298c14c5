"""The training loop: deterministic by its seed, resumable at every checkpoint, one optimiser step a batch.

B windows, S units in a window, K classes.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from einops import rearrange
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tubelet.models.costs import Cost, read_cost
from tubelet.models.families.channel_stack import ChannelStack
from tubelet.models.families.factorised import Factorised
from tubelet.models.families.vit import ViT
from tubelet.models.training.checkpointing import saved_bytes
from tubelet.models.training.drop_path import drawn_rows
from tubelet.models.training.layer_rates import parameter_groups
from tubelet.models.training.losses import (
    FLOW_WEIGHT,
    LABEL_SMOOTHING,
    FlowHeads,
    label_accuracy,
    label_loss,
)
from tubelet.models.training.processes import sum_, sum_gradients_
from tubelet.models.training.samples import Batch
from tubelet.models.video_model import VideoModel


@dataclass(frozen=True, slots=True)
class Recipe:
    """The hyperparameters of a run: AdamW, learning rate schedule, weight average, gradient clipping.

    A leg is one cycle of the learning rate: warm-up, constant, decay. While it is constant, a running leg can
    be made longer.
    """

    steps: int  # optimiser steps of all legs
    earlier_legs: tuple[int, ...] = ()  # the steps at which the legs before the last one ended
    batch_size: int = 32
    learning_rate: float = 8e-4
    weight_decay: float = 0.05
    warmup_steps: int = 100
    decay_share: float = 0.3  # share of a leg, at its end, in which the learning rate falls
    label_smoothing: float = LABEL_SMOOTHING
    average_decay: float = 0.999  # of the moving average of weights, a step
    clip_norm: float = 1.0  # largest norm of the gradient
    dtype: torch.dtype = torch.bfloat16
    checkpoint_steps: int = 200  # steps between two checkpoints
    first_layer_share: float = 1.0  # learning rate of the first layer, as a share of the last one's


class Diverged(ArithmeticError):
    """The loss or its gradient is not finite; the weights are still those before the step."""


Trainable = Factorised | ChannelStack | ViT
"""The families that can have flow heads."""
ModelT = TypeVar("ModelT", bound=nn.Module)


class Trainer(Generic[ModelT]):
    """A model in training with its flow heads, its optimiser and the moving average of its weights.

    ``average`` is the model that is evaluated and published. ``cost`` is that of ``fit``, up to the
    checkpoint and over all runs; None if one of them did not keep it.
    """

    def __init__(self, model: ModelT, heads: FlowHeads | None, recipe: Recipe) -> None:
        self.model, self.heads, self.recipe = model, heads, recipe
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.trained = nn.ModuleList([model] if heads is None else [model, heads])
        rate, decay = recipe.learning_rate, recipe.weight_decay
        groups = parameter_groups(self.trained, recipe.first_layer_share)
        self.optimiser = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), weight_decay=decay)
        self.step = 0
        self.cost: Cost | None = Cost()

    def start_last_leg(self, weights: Mapping[str, Tensor]) -> None:
        """Start the last leg from the ``weights`` of the one before, with a new optimiser and flow heads."""
        self.model.load_state_dict(weights)
        self.average.load_state_dict(weights)
        self.step = max(self.recipe.earlier_legs, default=0)

    def fit(self, batches: Iterable[Batch], checkpoint: Path, log: Path) -> None:
        """Train to the recipe's last step; write ``checkpoint`` regularly, and a line a step to ``log``.

        ``batches`` begin with that of the present step.
        """
        start, before = read_cost(), self.cost
        with (
            Progress("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar,
            log.open("a", buffering=1) as lines,
        ):
            task = bar.add_task("training", total=self.recipe.steps, completed=self.step)
            for batch in islice(batches, max(0, self.recipe.steps - self.step)):
                figures = self.train_step(batch)
                lines.write(f"{self.step}\t" + "\t".join(f"{value:.4f}" for value in figures) + "\n")
                description = "loss {:.3f} flow {:.3f} top-1 {:.2f}".format(*figures)
                bar.update(task, completed=self.step, description=description)
                if self.step % self.recipe.checkpoint_steps == 0 or self.step == self.recipe.steps:
                    self.cost = before and before + read_cost().since(start)
                    self.save(checkpoint)

    def train_step(self, batch: Batch) -> tuple[float, float, float]:
        """Train one step on ``batch``; return the label loss, the flow loss and the accuracy.

        With several processes, each has a part of the batch, perhaps none of it; figures are of the whole.

        Raises:
            Diverged: the loss or the gradient is not finite.
        """
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = (
                self.recipe.learning_rate * group.get("share", 1.0) * _schedule(self.step, self.recipe)
            )
        self.optimiser.zero_grad()
        count = len(batch.labels)
        figures = torch.zeros(4, dtype=torch.float64)
        with self._computing(batch):
            loss: Tensor | None = None
            if count:
                label, flow, accuracy = self._losses(batch)
                loss = (label + FLOW_WEIGHT * flow) * (count / (batch.total or count))
                values = [label.item(), flow.item(), accuracy.item(), 1.0]
                figures = torch.tensor(values, dtype=torch.float64) * count
            sum_(figures)
            if not figures.isfinite().all():
                raise Diverged(f"the loss of step {self.step + 1} is not a finite number")
            if loss is not None:
                loss.backward()
        sum_gradients_(self.trained)
        norm = nn.utils.clip_grad_norm_(self.trained.parameters(), self.recipe.clip_norm)
        if not norm.isfinite():
            raise Diverged(f"the gradient of step {self.step + 1} is not finite")
        self.optimiser.step()
        self.step += 1
        self._update_average()
        label_figure, flow_figure, accuracy_figure, _ = (figures / figures[3].clamp(min=1)).tolist()
        return label_figure, flow_figure, accuracy_figure

    def saved_bytes(self, batch: Batch) -> int:
        """Return how many bytes a step on ``batch`` keeps for its backward pass."""
        self.model.train()
        with self._computing(batch), torch.random.fork_rng(devices=()):
            return saved_bytes(self.model, lambda: self._losses(batch))

    @contextmanager
    def _computing(self, batch: Batch) -> Iterator[None]:
        """Hold what the forward pass depends on, which the backward pass may compute again."""
        # On the CPU, the backward pass of flash attention over few tokens is slower than plain products.
        with drawn_rows(self.step, batch), sdpa_kernel(SDPBackend.MATH):
            yield

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the label loss, the flow loss and the accuracy of a batch, of independent labels F1."""
        dtype = self.recipe.dtype
        with torch.autocast(batch.units.device.type, dtype, enabled=dtype != torch.float32):
            logits, tokens = self._forward(batch)
        wanted = batch.labels if batch.targets is None else batch.targets
        label = label_loss(logits, wanted, self.recipe.label_smoothing)
        flow = torch.zeros(())
        if self.heads is not None and batch.flow is not None and tokens is not None:
            flow = self.heads.loss(tokens, batch.flow)
        return label, flow, label_accuracy(logits, batch.labels)

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Compute logits (B, K) and, in families that can have flow heads, tokens (B S, 1 + P, D)."""
        if not isinstance(self.model, Factorised | ChannelStack | ViT):
            return self.model(batch.units).float(), None
        tokens = self.model.encode_tokens(batch.units.flatten(0, 1))
        windows = rearrange(tokens[:, 0], "(b s) d -> b s d", b=len(batch.units))
        return self.model.classify(windows).float(), tokens.float()

    def save(self, path: Path) -> None:
        """Write a checkpoint to resume from, atomically."""
        save_atomically(self.state(), path)

    def resume(self, path: Path) -> None:
        """Restore the state that ``save`` wrote to ``path``."""
        self.restore(torch.load(path, weights_only=True))

    def state(self) -> dict[str, Any]:
        """Return all that decides the next steps, beside the batches."""
        return {
            "step": self.step,
            "trained": self.trained.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "cost": self.cost and asdict(self.cost),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` returned."""
        self.step = state["step"]
        self.trained.load_state_dict(state["trained"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.cost = Cost(**cost) if (cost := state.get("cost")) else None

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the average towards the model's weights and statistics."""
        # Faster in the first steps, or the random initial weights would stay in the average for long.
        decay = min(self.recipe.average_decay, (1 + self.step) / (10 + self.step))
        pairs = zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True)
        for kept, now in pairs:
            if kept.is_floating_point():
                kept.lerp_(now, 1 - decay)
            else:
                kept.copy_(now)  # counters of batch norms


def save_atomically(state: Mapping[str, Any], path: Path) -> None:
    """Write a state beside ``path``, then rename the file, so that ``path`` is always complete.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_suffix(".partial")
    try:
        torch.save(state, partial)
        partial.replace(path)
    except (RuntimeError, OSError) as error:  # torch turns some of the system's errors into its own
        partial.unlink(missing_ok=True)
        raise OSError(f"the checkpoint {path} cannot be written; is the disk full?") from error


@torch.inference_mode()
def confusion(model: VideoModel, batches: Iterable[Batch], num_classes: int) -> Tensor:
    """Count the predictions of a model by true label (row) and predicted label (column): -> (K, K)."""
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for batch in batches:
        answers = model(batch.units).argmax(dim=1)
        counts.index_put_((batch.labels, answers), torch.ones_like(answers), accumulate=True)
    return counts


def _schedule(step: int, recipe: Recipe) -> float:
    """Return the learning rate at ``step`` as a share of the recipe's.

    Each leg has a linear warm-up, a constant part, and half a cosine down to 1 %.
    """
    start = max((end for end in recipe.earlier_legs if end <= step), default=0)
    end = min((end for end in recipe.earlier_legs if end > step), default=recipe.steps)
    if step < start + recipe.warmup_steps:
        return (step - start + 1) / recipe.warmup_steps
    decay_steps = max(1, round(recipe.decay_share * (end - start)))
    progress = max(0.0, (step - (end - decay_steps)) / decay_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
