"""A process that holds one form: python -m tools.side_by_side.worker FORM SIZE DEVICE [quick].

Reads commands and writes answers as lines of JSON: ``build`` a part, ``run`` it a number of times,
``outputs`` into a file, ``memory``, ``drop``. One process per form keeps the thread pools and
allocators of two frameworks apart, and a form that fails takes nobody along.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

FORMS = {
    "torch eager": ("torch", False, False),
    "torch.compile": ("torch", True, False),
    "XLA": ("xla", True, False),
    "torch eager, bf16": ("torch", False, True),
    "torch.compile, bf16": ("torch", True, True),
    "XLA, bf16": ("xla", True, True),
}


class Worker:
    """Answers commands about one form."""

    def __init__(self, form: str, size: str, device: str, quick: bool):
        framework, compiled, bfloat16 = FORMS[form]
        self.framework, self.device = framework, device
        from tools.side_by_side import scenes

        scene = scenes.scene(size, quick)
        if framework == "xla":
            from tools.side_by_side.xla_forms import XlaForms

            self.forms: Any = XlaForms(scene, device, bfloat16)
        else:
            from tools.side_by_side.torch_forms import TorchForms

            self.forms = TorchForms(scene, device, compiled=compiled, bfloat16=bfloat16)
        self.form: Any = None

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        return getattr(self, command.pop("do"))(**command)

    def build(self, part: str, batch: int) -> dict[str, Any]:
        """Loads, compiles and runs once; ``first_call_s`` is compilation and that run."""
        self.drop()
        began = time.perf_counter()
        self.form = self.forms.make(part, batch)
        loaded = time.perf_counter()
        self.form.run()
        first = time.perf_counter()
        self.form.run()
        again = time.perf_counter()
        return {
            "load_s": loaded - began, "first_call_s": first - loaded, "second_s": again - first,
        }  # fmt: skip

    def run(self, calls: int) -> dict[str, Any]:
        began = time.perf_counter()
        for _ in range(calls):
            self.form.run()
        return {"ms": (time.perf_counter() - began) / calls * 1e3}

    def outputs(self, path: str) -> dict[str, Any]:
        import numpy as np

        np.savez(path, **self.form.outputs())
        return {}

    def memory(self) -> dict[str, Any]:
        """Peak while the part runs, MB: of the process on a CPU, of the allocator on a GPU."""
        if self.device == "gpu" and self.framework == "torch":
            import torch

            torch.cuda.reset_peak_memory_stats()
            self.form.run()
            return {"peak_mb": torch.cuda.max_memory_allocated() / 2**20, "of": "allocator"}
        if self.device == "gpu":
            import jax

            self.form.run()
            stats = jax.local_devices()[0].memory_stats() or {}
            peak = stats.get("peak_bytes_in_use")
            # The peak of the process so far: parts that ran before are in it.
            return {"peak_mb": peak and peak / 2**20, "of": "allocator, since the start"}
        status = Path("/proc/self/status")
        try:
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak of compiling
            self.form.run()
            line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
            return {"peak_mb": int(line.split()[1]) / 2**10, "of": "process"}
        except (OSError, StopIteration):
            return {"peak_mb": None, "of": "process"}

    def about(self) -> dict[str, Any]:
        """Versions, device and threads."""
        import jax
        import numpy as np
        import torch

        about = {
            "versions": {"jax": jax.__version__, "torch": torch.__version__,
                         "numpy": np.__version__},
            "threads": len(os.sched_getaffinity(0)),
        }  # fmt: skip
        if self.framework == "torch" and self.device == "gpu":
            about["device"] = torch.cuda.get_device_name()
        else:
            about["device"] = jax.devices()[0].device_kind
        return about

    def drop(self) -> dict[str, Any]:
        self.form = None
        if self.framework == "torch":
            import torch

            torch.compiler.reset()
        gc.collect()
        if self.framework == "torch" and self.device == "gpu":
            torch.cuda.empty_cache()
        return {}


def main() -> int:
    form, size, device, *rest = sys.argv[1:]
    framework = FORMS[form][0]
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    os.environ["VASA_CACHE"] = "off"
    # JAX makes inputs for torch forms, too; it must not take the device for that.
    platform = "cuda" if device == "gpu" and framework == "xla" else "cpu"
    os.environ["JAX_PLATFORMS"] = platform
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever libraries print goes to the log
    try:
        worker = Worker(form, size, device, rest == ["quick"])
        answers.write(json.dumps({"ready": True}) + "\n")
    except Exception as error:
        traceback.print_exc()
        answers.write(json.dumps({"failed": _brief(error)}) + "\n")
        return 1
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            answer = {"failed": _brief(error), "not_offered": type(error).__name__ == "NotOffered"}
        answers.write(json.dumps(answer) + "\n")
    return 0


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


if __name__ == "__main__":
    raise SystemExit(main())
