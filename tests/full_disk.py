"""A full disk for tests, without one: a limit of the process on the size of its files."""

import contextlib

import pytest

resource = pytest.importorskip("resource")


@contextlib.contextmanager
def files_up_to(size):
    """No file may grow beyond ``size`` bytes: writing more fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
