import numpy as np
import pytest

from vasa_jax.metrics import latency


def test_a_hop_is_ready_with_its_last_frame():
    assert latency.hop_times([5, 9, 7, 3, 4], 2).tolist() == [9, 7]
    assert latency.hop_times([], 2).tolist() == []


def test_deadlines_of_a_rate_are_the_time_that_a_hop_lasts():
    hops = [49, 51, 79, 81]  # of two frames: 80 ms at 25, 50 at 40, 33.3 at 60
    assert [latency.missed(hops, 2, rate) for rate in (25, 40, 60)] == [0.25, 0.75, 1.0]
    assert latency.missed([], 2, 25) == 0.0


def test_percentiles_of_known_times():
    table = latency.percentiles(np.arange(101))
    assert table == {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    assert latency.percentiles([]) == {}


@pytest.mark.parametrize(
    "late, count", [([0.0, 0.005, 0.5, 0.0], 2), ([0.5], 0), ([0.0, 0.01], 2), ([], 0)]
)
def test_streams_are_counted_until_the_first_that_is_late(late, count):
    assert latency.most_in_time(late, 0.01) == count
