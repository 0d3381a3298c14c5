"""Outcomes of evaluations without a model: random answers that are often right, with pictures of noise."""

from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image

from tubelet.service.cli.evaluation.outcomes import TOP_K, Outcome
from tubelet.service.types.result import Label

_PICTURES = 8


def random_outcomes(labels: tuple[str, ...], videos: int, seed: int = 0) -> list[Outcome]:
    """Return the outcomes of a model on ``videos``, with all scores; it confuses each label with the next."""
    random = np.random.default_rng(seed)
    true = random.integers(0, len(labels), videos)
    logits = random.normal(size=(videos, len(labels)))
    logits[np.arange(videos), true] += 3
    logits[np.arange(videos), (true + 1) % len(labels)] += 2
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    best = np.argsort(-scores, axis=1)[:, :TOP_K]
    return [
        Outcome(
            f"{number:05}.mp4",
            labels[true[number]],
            tuple(Label(labels[each], float(scores[number, each])) for each in best[number]),
            scores[number].astype(np.float32),
            picture(number % _PICTURES),
        )
        for number in range(videos)
    ]


@cache
def picture(seed: int) -> bytes:
    """Return a JPEG of coloured noise, as large as a thumbnail."""
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 16, 3), np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).resize((160, 90), Image.Resampling.BICUBIC).save(stream, "JPEG")
    return stream.getvalue()
