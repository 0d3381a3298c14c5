"""The table for explanations of what a model looked at."""

from pydantic import Field

from tubelet.service.config.table import Table

_MIB = 1 << 20


class ExplainConfig(Table):
    """What explanations may cost beside classification, which goes before them."""

    frame_bytes: int = Field(default=64 * _MIB, ge=_MIB)
    """Most memory for the frames of one segment, which are kept until it is explained; a video has up to
    16 MiB more. Longer segments are refused."""
