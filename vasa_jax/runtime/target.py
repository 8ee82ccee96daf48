"""Which backend a program is written for: the one it runs on, or one it is only counted for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax

_counted: ContextVar[str] = ContextVar("counted", default="")


def backend() -> str:
    """``cpu``, ``gpu`` or ``tpu``: what formulations are chosen by."""
    return _counted.get() or jax.default_backend()


@contextlib.contextmanager
def traced_for(name: str) -> Iterator[None]:
    """Functions traced inside choose the forms of another backend; nothing can run there."""
    token = _counted.set(name)
    try:
        yield
    finally:
        _counted.reset(token)
