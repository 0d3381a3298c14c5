"""What a training cost, and what a clip costs: in words, for the report and for the card."""

from collections.abc import Mapping

from tubelet.models.costs import Cost, estimated_energy, measured_energy


def cost_lines(costs: Mapping[str, Cost], clip_processor_s: float) -> list[str]:
    """Return the lines on the costs of phases and of a clip, as far as they were measured.

    ``clip_processor_s`` is the time of the model for the windows of a clip.
    """
    phases = ", ".join(f"{phase} {cost.processor_s:.1f} s" for phase, cost in costs.items())
    total = sum(costs.values(), Cost())
    lines = [f"processor time: {phases}; {total.workers_s:.1f} s of it in worker processes"]
    if energy := measured_energy(total):
        lines.append(f"energy: {energy}; counters are of whole devices, whatever computes on them")
    return [
        *lines,
        f"a clip: {clip_processor_s:.3g} s of processor time in the model, and that of decoding it",
    ]


def card_cost_lines(costs: Mapping[str, Cost], clip_processor_s: float) -> list[str]:
    """Return the same lines, with an estimate of the energy where none was measured."""
    total, lines = sum(costs.values(), Cost()), cost_lines(costs, clip_processor_s)
    if not total.joules:
        lines.insert(1, f"energy of the training: {estimated_energy(total.processor_s)}")
    return lines
