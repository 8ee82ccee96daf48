"""A log under a flood."""

import logging

from vasa_jax.serve.sparing import Sparing


def test_many_records_of_a_kind_become_a_few_and_a_count():
    now = [0.0]
    said = []
    log = logging.Logger("test")
    handler = logging.Handler()
    handler.addFilter(Sparing(most=3, span_s=60.0, clock=lambda: now[0]))
    handler.emit = lambda record: said.append(record.getMessage())
    log.addHandler(handler)
    for n in range(1000):
        log.error("accept failed: %s", n)
    log.error("something else")
    assert len(said) == 4 and said[0] == "accept failed: 0" and said[-1] == "something else"
    assert "counted" in said[2]
    now[0] = 61.0
    log.error("accept failed: %s", "again")
    assert said[-1] == "[997 more of these were not shown] accept failed: again"
    for n in range(1000):  # messages that were put together before
        log.error(f"one of a kind {n}")
    assert len(said) == 1005
