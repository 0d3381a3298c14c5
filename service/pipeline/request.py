"""The request: what one classification of one video is asked for, and its timings."""

from dataclasses import dataclass, field

from tubelet.service.engine.served_model import ServedModel
from tubelet.service.engine.stage_queue import EngineCosts
from tubelet.service.metrics import RequestTimings
from tubelet.service.types.meter import UNMETERED, Meter
from tubelet.service.types.request import Options


@dataclass(frozen=True, slots=True)
class Request:
    """One classification of one video: the client's options, the model that they name, and the deadline.

    ``meter`` says on whose behalf, and counts what is used; ``costs`` are those of the engine.
    """

    options: Options
    model: ServedModel
    timings: RequestTimings
    deadline: float | None = None  # a time of the monotonic clock
    meter: Meter = UNMETERED
    costs: EngineCosts = field(default_factory=EngineCosts)
