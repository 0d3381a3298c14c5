"""Clips with known content: a drawn town, filmed by a camera with exact moves.

``python -m tests.support.sample_clip service/sample.mp4`` renders the clip of ``tubelet demo``.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT, FPS = 480, 270, 25


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera position: centre in picture pixels, scale (2: twice as large), roll in degrees clockwise."""

    x: float
    y: float
    scale: float = 1.0
    roll: float = 0.0


@cache
def town(width: int = 1600, height: int = 1000, seed: int = 7) -> Image.Image:
    """Draw a hilly town at dusk, with structure at every scale so that any move is visible anywhere."""
    rng = np.random.default_rng(seed)
    sky = np.linspace((70, 90, 160), (240, 190, 150), height)[:, None, :].repeat(width, axis=1)
    picture = Image.fromarray(sky.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(140):
        x, y, size = rng.integers((0, 0, 4), (width, height // 2, 26)).tolist()
        draw.ellipse([x, y, x + 3 * size, y + size], fill=_tint(rng, (225, 215, 220)))
    for layer in range(4):
        base = height * (0.35 + 0.1 * layer)
        xs = np.arange(0, width + 40, 40)
        ridge = base + 60 * np.sin(xs / (90 + 40 * layer) + layer * 2) + rng.normal(0, 14, len(xs))
        shade = (60 + 12 * layer, 95 - 8 * layer, 80 - 10 * layer)
        draw.polygon(
            [(0, height), *zip(xs.tolist(), ridge.tolist(), strict=True), (width, height)], fill=shade
        )
    for _ in range(260):
        x, y = int(rng.integers(-40, width)), int(rng.integers(height * 42 // 100, height * 98 // 100))
        wide, tall = int(rng.integers(24, 90)), int(rng.integers(30, 150))
        draw.rectangle([x, y - tall, x + wide, y], fill=_tint(rng, (150, 110, 90)), outline=(40, 30, 35))
        for row in range(y - tall + 6, y - 8, 14):
            for column in range(x + 5, x + wide - 8, 12):
                lit = rng.random() < 0.4
                draw.rectangle(
                    [column, row, column + 6, row + 8], fill=(250, 220, 120) if lit else (60, 60, 80)
                )
    return picture


def render_view(picture: Image.Image, camera: Camera, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """Render what ``camera`` sees in ``picture``: (height, width, 3) uint8."""
    width, height = size
    turn = np.deg2rad(camera.roll)
    cos, sin = np.cos(turn) / camera.scale, np.sin(turn) / camera.scale
    # A camera rolled clockwise sees along axes that are turned clockwise in the picture.
    shift_x = camera.x - cos * width / 2 + sin * height / 2
    shift_y = camera.y - sin * width / 2 - cos * height / 2
    seen = picture.transform(
        size, Image.Transform.AFFINE, (cos, -sin, shift_x, sin, cos, shift_y), Image.Resampling.BICUBIC
    )
    return np.asarray(seen)


def camera_move(start: Camera, end: Camera, seconds: float, fps: int = FPS) -> Iterator[Camera]:
    """Yield the camera's positions in a steady move; the scale changes by equal factors."""
    frames = round(seconds * fps)
    for index in range(frames):
        part = index / max(frames - 1, 1)
        yield Camera(
            x=start.x + part * (end.x - start.x),
            y=start.y + part * (end.y - start.y),
            scale=start.scale * (end.scale / start.scale) ** part,
            roll=start.roll + part * (end.roll - start.roll),
        )


def encode(
    frames: Iterable[np.ndarray],
    *,
    fps: int = FPS,
    container: str = "mp4",
    codec: str = "libx264",
    file: BinaryIO | None = None,
    **options: str,
) -> bytes:
    """Encode frames (H, W, 3) uint8 as a video, into ``file`` or returned as bytes."""
    buffer = BytesIO() if file is None else file
    with av.open(buffer, "w", format=container) as output:
        stream = None
        for frame in frames:
            if stream is None:
                stream = output.add_stream(codec, rate=Fraction(fps), options=options)
                assert isinstance(stream, av.VideoStream)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        if stream is not None:
            output.mux(stream.encode(None))
    return buffer.getvalue() if isinstance(buffer, BytesIO) else b""


def panning_clip(
    seconds: float, size: tuple[int, int] = (320, 240), container: str = "mp4", codec: str = "libx264"
) -> bytes:
    """Render a clip in which the camera pans right by half a picture's width a second."""
    cameras = camera_move(Camera(400, 500), Camera(400 + size[0] / 2 * seconds, 500), seconds)
    scene = town()
    return encode((render_view(scene, camera, size) for camera in cameras), container=container, codec=codec)


def sample_moves() -> Iterator[Camera]:
    """Yield the demo's camera positions: still, pan right, zoom in, tilt up, roll clockwise, still."""
    still = Camera(500, 560)
    right = Camera(1000, 560)
    near = Camera(1000, 560, scale=1.9)
    high = Camera(1000, 330, scale=1.9)
    rolled = Camera(1000, 330, scale=1.9, roll=60)
    yield from camera_move(still, still, 2.0)
    yield from camera_move(still, right, 3.0)
    yield from camera_move(right, near, 3.0)
    yield from camera_move(near, high, 3.0)
    yield from camera_move(high, rolled, 3.0)
    yield from camera_move(rolled, rolled, 2.0)


def _tint(rng: np.random.Generator, base: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = np.clip(np.array(base) + rng.integers(-45, 45, 3), 0, 255).tolist()
    return red, green, blue


if __name__ == "__main__":
    scene = town()
    clip = encode(
        (render_view(scene, camera) for camera in sample_moves()), crf="27", preset="veryslow", g="50"
    )
    Path(sys.argv[1]).write_bytes(clip)
    print(f"{sys.argv[1]}: {len(clip)} bytes")
