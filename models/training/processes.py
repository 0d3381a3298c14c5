"""Training in processes that ``torchrun`` started: each has a part of a batch; gradients are summed.

Where another process has ended, what needs all of them raises CannotTrain.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tubelet.models.costs import Cost
from tubelet.models.errors import CannotTrain

Item = TypeVar("Item")


def started(*, here: bool = False) -> int:
    """Return the number of processes that ``torchrun`` started, or of those on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE" if here else "WORLD_SIZE", "1"))


@contextmanager
def process_group() -> Iterator[None]:
    """Connect the processes that ``torchrun`` started; a process that was started otherwise is alone."""
    if started() < 2:
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process; process 0 prints and writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_share(items: Sequence[Item], together: int = 1) -> list[Item]:
    """Return the items of a batch that this process computes; runs of ``together`` items stay together."""
    return [item for number, item in enumerate(items) if number // together % size() == rank()]


def sum_(values: Tensor) -> None:
    """Replace values on the CPU by their sum over all processes."""
    if size() > 1:
        with _all_processes():
            dist.all_reduce(values)


def sum_costs(phases: Mapping[str, Cost]) -> dict[str, Cost]:
    """Return the costs of phases, which all processes went through, summed over them.

    Joules are process 0's: the others on its machine read the same counters.
    """
    seconds = torch.tensor([(cost.processor_s, cost.workers_s) for cost in phases.values()]).double()
    sum_(seconds)
    summed = zip(phases.items(), seconds.tolist(), strict=True)
    return {
        phase: Cost(processor_s, workers_s, cost.joules) for (phase, cost), (processor_s, workers_s) in summed
    }


def sum_gradients_(model: nn.Module) -> None:
    """Replace all gradients by their sum over all processes, some of which may have no part of the batch."""
    if size() == 1:
        return
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            sum_(parameter.grad)


def from_first(value: float) -> float:
    """Return process 0's value, so that all processes decide the same."""
    shared = torch.tensor([value], dtype=torch.float64)
    _share_(shared)
    return shared.item()


def any_process(flag: bool) -> bool:
    """Return whether ``flag`` is set in any process."""
    shared = torch.tensor([float(flag)])
    sum_(shared)
    return bool(shared.item())


def share_statistics_(model: nn.Module) -> None:
    """Replace the statistics of batch norms by process 0's."""
    for buffer in model.buffers():
        _share_(buffer)


def _share_(values: Tensor) -> None:
    """Replace values on the CPU by process 0's."""
    if size() > 1:
        with _all_processes():
            dist.broadcast(values, 0)


@contextmanager
def _all_processes() -> Iterator[None]:
    """Say in a sentence that another process has ended, which closes its connections."""
    try:
        yield
    except RuntimeError as error:
        raise CannotTrain("another process of this training has ended; it says why") from error
