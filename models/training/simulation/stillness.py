"""Detect clips whose camera stands still, by phase correlation of blocks half a second apart.

Kuglin and Hines, "The phase correlation image alignment method", 1975. F frames, H W pixels, M blocks.
"""

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

BLOCK = 32  # side of a block, pixels
LAG_FRAMES = 8  # half a second of cached frames
MIN_TEXTURE = 4.0  # standard deviation of grey levels (0..255) under which a block cannot tell its shift
MIN_STILL_BLOCKS = 0.5  # share of the textured blocks that must not have moved; objects may move the others
MIN_STILL_PAIRS = 0.95  # share of the frame pairs that must be still


def is_still(frames: NDArray[np.uint8]) -> bool:
    """Return whether most of the picture stays in place in all ``frames`` (F, H, W, 3) uint8."""
    grey = frames.astype(np.float32).mean(axis=-1)
    blocks = _blocks(grey)
    near = [still_share(a, b) for a, b in zip(blocks[:-LAG_FRAMES:4], blocks[LAG_FRAMES::4], strict=False)]
    far = [still_share(blocks[0], block) for block in blocks[LAG_FRAMES :: 2 * LAG_FRAMES][:8]]
    shares = np.array(near + far)
    return len(shares) > 0 and float((shares >= MIN_STILL_BLOCKS).mean()) >= MIN_STILL_PAIRS


def still_share(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Return the share of textured blocks that did not shift: (M, BLOCK, BLOCK) twice -> 0..1.

    It is 0 if fewer than four blocks have texture.
    """
    textured = (before.std(axis=(1, 2)) > MIN_TEXTURE) & (after.std(axis=(1, 2)) > MIN_TEXTURE)
    if textured.sum() < 4:
        return 0.0
    window = np.outer(np.hanning(BLOCK), np.hanning(BLOCK)).astype(np.float32)
    a, b = (
        np.fft.rfft2((block[textured] - block[textured].mean(axis=(1, 2), keepdims=True)) * window)
        for block in (before, after)
    )
    cross = a * b.conj()
    surface = np.fft.irfft2(cross / (np.abs(cross) + 1e-3))
    return float((rearrange(surface, "m h w -> m (h w)").argmax(axis=1) == 0).mean())


def _blocks(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut pictures into blocks: (F, H, W) -> (F, M, BLOCK, BLOCK)."""
    rows, columns = grey.shape[1] // BLOCK, grey.shape[2] // BLOCK
    cut = grey[:, : rows * BLOCK, : columns * BLOCK]
    return rearrange(cut, "f (r h) (c w) -> f (r c) h w", h=BLOCK, w=BLOCK)
