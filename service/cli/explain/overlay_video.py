"""The pictures of a video with a track of maps over them. H W C pixels of a picture."""

import numpy as np

from tubelet.service.report.maps.heat import Overlay, mixed, to_bytes
from tubelet.service.report.maps.tracks import MapTrack


class MapPainter:
    """Draws the map of each time over the picture of that time; pictures are all of one size."""

    def __init__(self, track: MapTrack) -> None:
        self._track = track
        self._maps = to_bytes(track.patches, track.most, track.scale)
        self._overlay: Overlay | None = None
        self._step: int | None = None
        self._layer = np.empty(0)

    def __call__(self, picture: np.ndarray, time_ns: int) -> np.ndarray:
        """Return ``picture`` (H, W, 3) uint8 with the map of ``time_ns`` over it, if there is one."""
        step = self._track.step_at(time_ns)
        if step is None:
            return picture
        if self._overlay is None:
            grid = self._track.patches.shape[1:]
            self._overlay = Overlay(picture.shape[:2], grid, self._track.rectangle)
        if step != self._step:
            self._step, self._layer = step, self._overlay.layer(self._maps[step], self._track.scale)
        return mixed(picture, self._layer)
