"""A clip on disk, opened as training reads all of them."""

from pathlib import Path
from typing import Any

import av
import av.logging
from av.container import InputContainer

# Text in a header that is not UTF-8 shall not stop anybody. From 19 on PyAV does that by itself.
_LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_clip(path: Path) -> InputContainer:
    """
    Raises:
        av.FFmpegError: it is not a video, or its header is damaged.
    """
    # Before any codec is opened: with PyAV's own callback, closing a frame-threaded codec early deadlocks.
    av.logging.restore_default_callback()
    return av.open(str(path), **_LENIENT)
