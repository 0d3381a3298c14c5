"""The session of one video that is explained: all it computes goes last, by the unpacked copy of its model.

S units in a window, t frames in a unit, H W C pixels, D width of an embedding, K classes.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tubelet.models.explain.classification import Steps, embedding_steps, logit_steps
from tubelet.models.explain.explain import explanation_steps
from tubelet.models.explain.explanation import Explanation, Question
from tubelet.models.video_model import VideoModel
from tubelet.service.engine.explainer import Explainer
from tubelet.service.engine.model_runner import WindowInput
from tubelet.service.engine.served_model import ServedModel
from tubelet.service.engine.session import VideoSession
from tubelet.service.engine.stage_queue import EngineCosts, Item, StageQueue
from tubelet.service.fair_queue import Flow
from tubelet.service.types.request import Priority
from tubelet.service.types.video import UnitFrames


class ExplainSession(VideoSession):
    """Computes the units and windows of one video by ``copy`` of ``model``, and explains its windows.

    There is no cache, and no batch: what other videos do changes nothing.
    """

    def __init__(
        self,
        explainer: Explainer,
        model: ServedModel,
        copy: VideoModel,
        priority: Priority,
        deadline: float | None,
        costs: EngineCosts,
    ) -> None:
        super().__init__(_CopyExecutor(explainer, copy), model, None, priority, deadline, costs)
        self._explainer = explainer
        self._copy = copy
        self._explanations: Flow[Any] = Flow(priority, deadline, identity=costs.meter.identity)

    async def explain(self, window: Tensor, question: Question) -> Explanation:
        """Explain a window, (S, t, H, W, C) uint8."""

        def steps() -> Steps[Explanation]:
            pixels = window.to(self._explainer.device)  # on the explainer's thread
            return (yield from explanation_steps(self._copy, self._model.spec, pixels, question))

        result = self._promise()
        self._explainer.submit(self._explanations, Item(steps, self.costs, result))
        return await result


class _CopyExecutor:
    """Computes what a ``VideoSession`` submits by ``copy``, one unit or window at a time."""

    def __init__(self, explainer: Explainer, copy: VideoModel) -> None:
        self._explainer = explainer
        self._copy = copy

    def submit(self, queue: StageQueue[Any, Any], flow: Flow[Any], item: Item[Any, Any]) -> None:
        """Queue the unit or window of ``item`` under ``flow``."""
        match item.payload:
            case UnitFrames() as unit:
                pixels = torch.from_numpy(unit.pixels.copy())  # the decoder uses its memory again
                unit.release()
                item.payload = partial(self._embed, pixels)
            case WindowInput(embeddings):
                item.payload = partial(self._classify, embeddings)
        self._explainer.submit(flow, item)

    def _embed(self, pixels: Tensor) -> Steps[Tensor]:
        """Embed a unit: (t, H, W, C) uint8 -> (D,)."""
        vectors = yield from embedding_steps(self._copy, pixels[None].to(self._explainer.device))
        return vectors[0]

    def _classify(self, embeddings: Sequence[Tensor]) -> Steps[Any]:
        """Classify a window of S embeddings (D,): -> (K,) float32."""
        logits = yield from logit_steps(self._copy, torch.stack(list(embeddings)))
        return logits.cpu().numpy()
