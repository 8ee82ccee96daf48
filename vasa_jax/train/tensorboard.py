"""Scalars as TensorBoard reads them, written by the training thread itself.

tensorboardX knows the records; its own writer is a thread behind a queue, and when that thread dies
of a full disk the queue fills up and the run stands still for ever. A run writes a few dozen
numbers now and then, for which nobody needs a thread.
"""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

from vasa_jax.train.side_file import SideFile


class EventFile:
    """One session's events in ``folder``. Raises ImportError without tensorboardX.

    What a killed session wrote from ``purge_step`` on is hidden by TensorBoard.
    """

    def __init__(self, folder: Path, *, purge_step: int):
        import tensorboardX  # noqa: F401  # the whole of it, or none
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        began = time.time()
        self.file = SideFile(folder / f"events.out.tfevents.{began:.0f}.{socket.gethostname()}")
        self._write(Event(wall_time=began, file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=began, step=purge_step, session_log=start))

    def scalar(self, name: str, value: float, step: int) -> None:
        from tensorboardX import summary
        from tensorboardX.proto.event_pb2 import Event

        self._write(Event(wall_time=time.time(), step=step, summary=summary.scalar(name, value)))

    def _write(self, event: object) -> None:
        """A record: length, its sum, the event, its sum (TFRecord)."""
        from tensorboardX.record_writer import masked_crc32c

        data: bytes = event.SerializeToString()  # type: ignore[attr-defined]
        length = struct.pack("<Q", len(data))
        sums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
        self.file.append(length + next(sums) + data + next(sums))
