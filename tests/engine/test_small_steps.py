"""Tests of small steps: the same results, no large step, and an end at any of them."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tubelet.service.engine import small_steps
from tubelet.service.engine.small_steps import Interrupted, SmallSteps

LIMIT = 4096


def _rand(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _gradient_of_linear() -> Tensor:
    """Return the gradient of a product's rows, which a backward pass computes."""
    rows = _rand(32, 24).requires_grad_()
    loss = F.linear(rows, _rand(40, 24), _rand(40)).square().sum()
    return torch.autograd.grad(loss, rows)[0]


COMPUTATIONS: dict[str, Callable[[], Tensor]] = {
    "product": lambda: _rand(33, 24) @ _rand(24, 40),
    "linear": lambda: F.linear(_rand(33, 24), _rand(40, 24), _rand(40)),
    "attention": lambda: F.scaled_dot_product_attention(
        _rand(2, 6, 14, 8), _rand(2, 6, 14, 8) + 1, _rand(2, 6, 14, 8) + 2
    ),
    "backward": _gradient_of_linear,
}


class _Largest(TorchDispatchMode):
    """Counts the multiplications of the largest operation within the context."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if (
            func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
        ):  # unknown to the counter
            self.largest = max(self.largest, 2 * args[0].numel() * args[1].shape[2])
            return func(*args, **(kwargs or {}))
        with FlopCounterMode(display=False) as counter:
            result = func(*args, **(kwargs or {}))
        self.largest = max(self.largest, counter.get_total_flops() // 2)
        return result


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_steps_are_small_and_change_no_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_steps, "MAX_MULTIPLICATIONS", LIMIT)
    compute, turns = COMPUTATIONS[name], []
    with _Largest() as whole:
        expected = compute()
    with _Largest() as parts, SmallSteps(lambda: turns.append(None) is None):
        found = compute()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert whole.largest > 2 * LIMIT  # else there was nothing to divide
    assert parts.largest <= LIMIT * 1.7  # one row or head more than the limit
    assert len(turns) >= whole.largest / LIMIT / 2


def test_a_computation_ends_before_the_next_step() -> None:
    turns, sums = iter([True, True, False]), torch.zeros(3)
    with SmallSteps(partial(next, turns)):
        sums[0].add_(1)
        with pytest.raises(Interrupted):
            sums[1].add_(1)
    assert sums.tolist() == [1, 0, 0]
