"""What the C library does with memory that was freed."""

from __future__ import annotations

import ctypes
import os

# Parameters of mallopt (glibc's malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Lets glibc keep freed memory for what is allocated next; whether it was asked to.

    XLA on a CPU allocates the temporaries of every call anew. By default large blocks go back to
    the system when freed and come again page by page; here they stay, up to 2 GB. Settings of the
    user's own win, and other C libraries are left alone.
    """
    if any(name in os.environ for name in OWN_SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc; Windows has no CDLL(None)
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20))
    return all([mallopt(name, value) == 1 for name, value in settings])
