"""Measures how soon the segments of a live stream come, and the first segment of a long video.

    python -m tests.bench.live [--seconds 20]

*Live*: uploads MPEG-TS in real time, each packet when its frame is due, to a real server with the default
model, in windows of two seconds every second. Measured is the time from the end of a segment to its answer. A
segment that ends at 5 s needs the window from 4 to 6 s, so one second of that is waiting for frames. *Long*:
uploads five minutes as fast as possible. Measured is how much is decoded when the first segment comes.
"""

import argparse
import io
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import av

from tests.bench.footage import LONG_FEW_KEYS, Clip, rendered
from tests.bench.serve import started
from tubelet.service.client import Client
from tubelet.service.types.result import Progress, Segment
from tubelet.service.types.video import NS_PER_S

CLIP = Clip("100 s 360p", 640, 360, 800, 250, shots=10, repeats=2)


class Camera:
    """A file whose bytes can be read once their frames would have been recorded."""

    def __init__(self, file: Path) -> None:
        self._data = io.BytesIO(file.read_bytes())
        with av.open(str(file)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
        assert packets[0].time_base is not None
        first = min(packet.pts or 0 for packet in packets)
        dues = [float(((packet.pts or 0) - first) * packet.time_base) for packet in packets]
        # A packet is complete where the next one begins.
        ends = [packet.pos or 0 for packet in packets[1:]] + [file.stat().st_size]
        self._pieces = iter(list(zip(dues, ends, strict=True)))
        self.began_s = 0.0

    def read(self, _: int = -1) -> bytes:
        self.began_s = self.began_s or time.monotonic()
        for due_s, end in self._pieces:
            if end > self._data.tell():
                time.sleep(max(0.0, self.began_s + due_s - time.monotonic()))
                return self._data.read(end - self._data.tell())
        return b""


def recorded(seconds: float, folder: str) -> Path:
    """Encode a clip as for a live stream: without B-frames, and a key frame every second."""
    file = Path(folder) / "live.ts"
    command = ["ffmpeg", "-v", "error", "-i", str(rendered(CLIP)), "-t", str(seconds), "-an"]
    command += ["-c:v", "libx264", "-tune", "zerolatency", "-g", "30", str(file)]
    subprocess.run(command, check=True)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        started() as server,
        Client(f"127.0.0.1:{server.port}") as client,
    ):
        camera = Camera(recorded(arguments.seconds, folder))
        late_s = [
            time.monotonic() - camera.began_s - event.end_ns / NS_PER_S
            for event in client.stream(camera)  # pyright: ignore[reportArgumentType]
            if isinstance(event, Segment)
        ]
        *during, _last = late_s  # the last one is known at the end, before a second more
        print(
            f"live: {len(during)} segments came {statistics.median(during):.2f} s after their ends in the "
            f"middle, {max(during):.2f} s at most; 1 s of it is the stride"
        )
        long, start = rendered(LONG_FEW_KEYS), time.monotonic()
        events = client.stream(long)
        next(each for each in events if isinstance(each, Segment))
        first_s = time.monotonic() - start
        progress = next(each for each in events if isinstance(each, Progress))
        rest = list(events)
        print(
            f"long: the first segment came after {first_s:.2f} s, the whole answer after "
            f"{time.monotonic() - start:.2f} s; the first progress said {progress.decoded_s:.0f} of "
            f"{progress.total_s:.0f} s; {sum(isinstance(each, Segment) for each in rest)} segments followed"
        )


if __name__ == "__main__":
    main()
