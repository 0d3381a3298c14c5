"""The table for quotas: how much an identity may have the server do."""

from pydantic import Field

from tubelet.service.config.table import Table
from tubelet.service.types.request import Priority

MOST = 10**15
"""The largest quota, of any kind."""


class QuotasConfig(Table):
    """Quotas of each identity whose own table does not set them; see [Quotas](#quotas). Each replica counts
    for itself."""

    videos_in_flight: int | None = Field(default=None, ge=0, le=MOST)
    """Most videos in flight at a time. It stands in place of `server.max_videos_per_client`."""
    videos_per_minute: int | None = Field(default=None, ge=0, le=MOST)
    """Most videos that may begin in a minute."""
    bytes_per_day: int | None = Field(default=None, ge=0, le=MOST)
    """Most bytes that may be uploaded or fetched in a day."""
    device_seconds_per_hour: int | None = Field(default=None, ge=0, le=MOST)
    """Most time of devices that may be used in an hour. The time of a batch is divided among its items."""
    highest_priority: Priority | None = None
    """Highest priority that a request may ask for: `low`, `normal` or `high`."""

    @property
    def are_set(self) -> bool:
        """Whether there is any quota."""
        return any(getattr(self, key) is not None for key in QuotasConfig.model_fields)

    def or_else(self, defaults: "QuotasConfig") -> "QuotasConfig":
        """Return these quotas, and ``defaults`` in place of those that are not set."""
        both = {key: (getattr(self, key), getattr(defaults, key)) for key in QuotasConfig.model_fields}
        return QuotasConfig(**{key: other if own is None else own for key, (own, other) in both.items()})


NO_QUOTAS = QuotasConfig()
"""No quota of any kind."""
