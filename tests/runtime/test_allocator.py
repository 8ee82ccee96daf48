import os
import subprocess
import sys

import pytest

from vasa_jax.runtime.allocator import OWN_SETTINGS

FREED = """
import numpy as np
from vasa_jax.runtime.allocator import keep_freed_memory
from vasa_jax.runtime.machine import resident_mb
asked = keep_freed_memory()
big = np.ones(50_000_000, np.uint8)
full = resident_mb()
del big
print(asked, full - resident_mb())
"""


def freed(**settings: str) -> list[str]:
    env = {k: v for k, v in os.environ.items() if k not in OWN_SETTINGS} | settings
    done = subprocess.run([sys.executable, "-c", FREED], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of Linux's C library")
def test_freed_memory_stays_unless_the_user_decides():
    asked, back_mb = freed()
    if asked == "False":
        pytest.skip("this C library is not glibc")
    assert float(back_mb) < 5
    asked, back_mb = freed(MALLOC_MMAP_MAX_="65536")
    assert asked == "False" and float(back_mb) > 45
