"""Destinations that several runs begin at once."""

from pathlib import Path

import pytest

from tests.support.batches import PLAN
from tubelet.service.batch.destination.layout import Layout, prepare, read_layout, read_plans
from tubelet.service.batch.destination.store import FolderStore

LAYOUT = Layout(2, "parquet")


def test_a_run_that_begins_between_the_looks_of_another_is_no_obstacle(tmp_path: Path) -> None:
    class BegunMeanwhile(FolderStore):
        """A store that another run begins after this one has found nothing."""

        is_begun = False

        def read(self, name: str) -> bytes:
            try:
                return super().read(name)
            finally:
                if not self.is_begun:
                    self.is_begun = True
                    prepare(FolderStore(tmp_path), PLAN, LAYOUT, may_add=False)

    store = BegunMeanwhile(tmp_path)
    prepare(store, PLAN, LAYOUT, may_add=False)
    assert read_layout(store) == LAYOUT


@pytest.mark.parametrize("content", [b"", b'{"key": "0123'])
def test_a_plan_that_is_being_written_is_no_plan_yet(tmp_path: Path, content: bytes) -> None:
    store = FolderStore(tmp_path)
    prepare(store, PLAN, LAYOUT, may_add=False)
    (tmp_path / "_tubelet" / "plans" / f".{PLAN.key}.json.0a1b2c3d.part").write_bytes(content)
    prepare(store, PLAN, LAYOUT, may_add=False)
    assert list(read_plans(store)) == [PLAN.folder]
