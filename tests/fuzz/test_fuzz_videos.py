"""A few hundred broken videos through the real pool; ``python -m tests.fuzz`` makes as many as you like."""

import pytest

from tests.fuzz.mutate import mutant
from tests.fuzz.videos import run_campaign
from tests.support.videos import VIDEOS, render

_MUTANTS = 300


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """One of each common container, and the smallest of the collection where it is."""
    folder = tmp_path_factory.mktemp("sound")
    endings = ("mp4", "mkv", "ts", "flv")
    rendered = [render(folder / f"clip.{ending}", 40, options={"g": "10"}) for ending in endings]
    rendered.append(render(folder / "clip.avi", 40, codec="mpeg4", options={"bf": "2"}))
    found = sorted(path for path in VIDEOS.glob("odd/**/*") if path.is_file())
    small = [path for path in found if 0 < path.stat().st_size <= 20_000]
    return [path.read_bytes() for path in rendered + small]


async def test_broken_videos_cost_no_other_video(clips: list[bytes]) -> None:
    report = await run_campaign(clips, range(_MUTANTS), workers=2)
    assert report.outcomes.total() == _MUTANTS
    assert report.hung == []
    assert report.surprises == {}
    assert report.crashes == {}
    assert (report.leaked_descriptors, report.leaked_processes) == (0, 0)
    # Workers may run out of memory or time, which is what limits are for, but must not hang or crash.
    assert report.failures.keys() <= {"oom", "cpu_time", "wall_time"}
    assert len(report.outcomes) >= 4  # what is tried goes further than the header


def test_seed_makes_the_same_mutant_again(clips: list[bytes]) -> None:
    mutants = [mutant(clips, seed) for seed in range(50)]
    assert mutants == [mutant(clips, seed) for seed in range(50)]
    assert len(set(mutants)) > 40
    assert not set(mutants) & set(clips)
