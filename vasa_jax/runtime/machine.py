"""What a measurement was made on: processor, device, versions, memory."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("vasa-jax", "jax", "jaxlib", "flax", "numpy", "av")


def use_cores(count: int) -> None:
    """Pins this process and its children to the first ``count`` cores it may use; 0 leaves all.

    Threads that exist already keep theirs, so call it before JAX's first device is looked up. Does
    nothing on systems without affinity.
    """
    if count and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def machine() -> dict[str, Any]:
    """Processor, cores in use, JAX's device, system; ``short`` is for names of files."""
    import jax

    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kind = "cpu" if device.platform == "cpu" else device.device_kind.replace(" ", "-").lower()
    return {
        "cpu": processor(),
        "cores": cores,
        "device": device.device_kind,
        "short": f"{kind}{cores}" if kind == "cpu" else kind,
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str]:
    """Python and the packages that decide speed; "absent" for what is not installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def peak_memory_mb(*, children: bool = False) -> float | None:
    """Largest resident memory so far of this process, or of its finished children; None: untold."""
    try:
        import resource
    except ImportError:
        return None
    who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
    return resource.getrusage(who).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def resident_mb(pid: int | None = None) -> float:
    """Resident memory of a process (this one), MB of 10^6 bytes: from /proc, elsewhere by ps."""
    pid = os.getpid() if pid is None else pid
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        out = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True)
        return int(out.stdout) * 1024 / 1e6


def children_cpu_s() -> float:
    """Processor seconds of the finished children of this process, user and system."""
    times = os.times()
    return times.children_user + times.children_system


def device_memory_mb() -> float | None:
    """Largest amount of the device's own memory that JAX had in use; None on a CPU."""
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    return None if peak is None else peak / 2**20


def processor() -> str:
    """The processor's name, and its family and model: on virtual machines many share a name."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        fields = dict(re.findall(r"^(.+?)\s*: *(.+)$", first, re.MULTILINE))
        name = fields["model name"].strip()
    except (OSError, KeyError):
        return platform.processor() or platform.machine()
    numbers = [f"{k} {fields[f]}" for k, f in (("family", "cpu family"), ("model", "model"))
               if f in fields]  # fmt: skip
    return f"{name} ({', '.join(numbers)})" if numbers else name
