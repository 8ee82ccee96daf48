"""Ray Data as the engine of ``prepare``: the same pure stages, on the machines of a cluster.

A row is a task. Ray gives it to another worker when the one that had it dies; a row whose workers
died each time is an error of that row alone. All machines must see the same folders and have this
package; only the process that asked writes journals.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from vasa_jax.core.errors import UserError
from vasa_jax.prepare.engine import DIED, RETRIES, Row, Work

ROWS_AT_ONCE = 2000  # of one dataset: its plan has a block for each


class RayEngine:
    """``Engine`` on a Ray cluster.

    Args:
        address: of a running cluster, as ``ray.init`` takes it; empty: one of this machine alone.
        workers: rows at a time; 0: as many as the cluster has cores.
    """

    def __init__(self, address: str = "", workers: int = 0):
        """Raises UserError without Ray, or where no cluster answers."""
        try:
            import ray
        except ImportError:
            raise UserError("--engine ray needs Ray: pip install 'vasa-jax[cluster]'") from None
        self._workers = workers
        if not ray.is_initialized():
            local: dict[str, Any] = {"include_dashboard": False}
            if workers:
                local["num_cpus"] = workers
            try:
                ray.init(
                    address=address or None, log_to_driver=False, logging_level=logging.ERROR,
                    **({} if address else local),
                )  # fmt: skip
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise UserError(f"no Ray cluster at {address or 'this machine'}: {error}") from None

    def map(self, function: Work, rows: Iterable[Row]) -> Iterator[tuple[Row, Row]]:
        """Each row with what the function made of it, as they are ready."""
        import ray.data

        context = ray.data.DataContext.get_current()
        context.max_errored_blocks = -1  # a row that fails must not end the others
        context.enable_progress_bars = False
        context.verbose_stats_logs = False
        source = iter(rows)
        while part := list(islice(source, ROWS_AT_ONCE)):
            items = [{"number": i, "row": json.dumps(row)} for i, row in enumerate(part)]
            data = ray.data.from_items(items, override_num_blocks=len(items))
            made = data.map(
                _Told(function), num_cpus=1, concurrency=self._workers or None, max_retries=RETRIES
            )
            left = dict(enumerate(part))
            for item in made.iter_rows():
                yield left.pop(item["number"]), json.loads(item["outcome"])
            for row in left.values():
                yield row, {"error": DIED}

    def close(self) -> None:
        """Leave the cluster; ends it where it is this process's own."""
        import ray

        ray.shutdown()


class _Told:
    """The function as Ray Data wants it: rows of plain values."""

    def __init__(self, function: Work):
        self._function = function

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        outcome = self._function(json.loads(item["row"]))
        return {"number": item["number"], "outcome": json.dumps(outcome)}
