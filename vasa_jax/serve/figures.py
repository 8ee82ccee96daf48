"""What a server counts, as Prometheus text (exposition format 0.0.4)."""

from __future__ import annotations

import bisect
from collections import Counter

LATENCY_BUCKETS_MS = (40.0, 80.0, 120.0, 160.0, 200.0, 300.0, 500.0, 1000.0)
HELP = {
    "sessions_total": "sessions that were started",
    "sessions_refused_total": "sessions and uploads refused, by reason",
    "sessions_ended_total": "sessions that ended, by reason",
    "connections_ended_total": "connections ended before they showed a token, by reason",
    "frames_total": "frames sent",
    "frames_not_drawn_total": "frames that repeated a picture because the machine was late",
    "sound_dropped_samples_total": "samples at 16 kHz dropped from microphones",
    "interruptions_total": "interruptions",
    "bytes_sent_total": "bytes of pictures and sound sent",
    "portraits_total": "portraits prepared",
}


class Figures:
    """Counters of one server process; used from its event loop alone."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._buckets = [0] * (len(LATENCY_BUCKETS_MS) + 1)
        self._sum_ms = 0.0

    def add(self, name: str, value: float = 1, *, reason: str = "") -> None:
        """Adds to a counter of ``HELP``."""
        if name not in HELP:
            raise KeyError(name)
        self.counts[name, reason] += value  # type: ignore[assignment]

    def latency(self, ms: float) -> None:
        """One frame, from its first sample to its encoded picture."""
        self._buckets[bisect.bisect_left(LATENCY_BUCKETS_MS, ms)] += 1
        self._sum_ms += ms

    def text(self, gauges: dict[str, float]) -> str:
        """Everything, with ``gauges`` of the moment."""
        lines = []
        for name, value in gauges.items():
            lines += [f"# TYPE vasa_{name} gauge", f"vasa_{name} {value:g}"]
        for name, words in HELP.items():
            lines += [f"# HELP vasa_{name} {words}", f"# TYPE vasa_{name} counter"]
            rows = {r: v for (n, r), v in self.counts.items() if n == name} or {"": 0}
            for reason, value in sorted(rows.items()):
                label = f'{{reason="{reason}"}}' if reason else ""
                lines.append(f"vasa_{name}{label} {value:g}")
        lines += ["# HELP vasa_latency_ms from a frame's first sample to its encoded picture",
                  "# TYPE vasa_latency_ms histogram"]  # fmt: skip
        total = 0
        for edge, count in zip([*map("{:g}".format, LATENCY_BUCKETS_MS), "+Inf"], self._buckets,
                               strict=True):  # fmt: skip
            total += count
            lines.append(f'vasa_latency_ms_bucket{{le="{edge}"}} {total}')
        lines += [f"vasa_latency_ms_sum {self._sum_ms:g}", f"vasa_latency_ms_count {total}"]
        return "\n".join(lines) + "\n"
