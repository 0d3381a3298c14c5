"""Some hundred calls of each kind that is wrong; ``python -m tests.fuzz calls`` makes as many as you like."""

from collections.abc import Iterator

import pytest

from tests.fuzz.call_inputs import KINDS, Kind, make_input
from tests.fuzz.calls import Fuzzed, fuzzed, run_calls

_CALLS = {"messages": 300, "tokens": 300, "headers": 192}
_EXPECTED = {  # of the outcomes: some calls get as far as this
    "messages": {"code 0", "code 3"},
    "tokens": {"code 16"},
    "headers": {"code 0", "code 13", "code 16"},
}
_MOST_GROWN_BYTES = 64 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    with fuzzed(tmp_path_factory.mktemp("fuzzed")) as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_calls_are_refused_and_cost_nobody_else(server: Fuzzed, kind: Kind) -> None:
    report = run_calls(server, kind, range(_CALLS[kind]))
    assert report.outcomes.total() == _CALLS[kind]
    assert report.wrong == {}
    assert report.log == []
    assert report.lines >= _CALLS[kind] // 8
    assert report.outcomes.keys() >= _EXPECTED[kind]
    assert report.rss_bytes[-1] - report.rss_bytes[0] < _MOST_GROWN_BYTES


@pytest.mark.parametrize("kind", KINDS)
def test_seed_makes_the_same_call_again(kind: Kind) -> None:
    calls = [(each.path, each.body) for each in (make_input(kind, seed) for seed in range(50))]
    assert calls == [(each.path, each.body) for each in (make_input(kind, seed) for seed in range(50))]
    assert len({(each.body, each.headers) for each in (make_input(kind, seed) for seed in range(50))}) > 30
