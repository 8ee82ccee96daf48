"""Trains in a process of its own, with fake devices or as one of several; the tests read its logs.

``python -m tests.train.many_devices '{"jobs": [...], "join": {...}}'``, see ``start`` and ``job``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # to compile


def job(task: str, workdir: Path, steps: int, **changes: Any) -> dict[str, Any]:
    """One run; ``changes`` are settings of its config, dots written as two underscores."""
    settings = [f"{name.replace('__', '.')}={value}" for name, value in changes.items()]
    return {"task": task, "workdir": str(workdir), "steps": steps, "settings": settings}


def start(jobs: list[dict[str, Any]], *, devices: int, join: Any = None) -> subprocess.Popen[str]:
    """A process with ``devices`` fake devices that does the jobs one after the other."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "VASA_CACHE": "off",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {QUICK}",
    }
    words = [sys.executable, "-m", "tests.train.many_devices"]
    return subprocess.Popen(
        [*words, json.dumps({"jobs": jobs, "join": join})],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(*processes: subprocess.Popen[str], timeout_s: float = 900.0) -> list[str]:
    """What each said, once all ended well."""
    try:
        said = [process.communicate(timeout=timeout_s)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == 0, text
    return said


def train_together(
    jobs: list[dict[str, Any]],
    *,
    processes: int,
    devices: int,
    meanwhile: Callable[[list[subprocess.Popen[str]]], None] | None = None,
) -> list[str]:
    """The jobs by several processes on this machine; ``meanwhile`` may disturb them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    joins = [
        {"coordinator": coordinator, "processes": processes, "process_id": i}
        for i in range(processes)
    ]
    started = [start(jobs, devices=devices, join=join) for join in joins]
    try:
        if meanwhile is not None:
            meanwhile(started)
    except BaseException:
        for process in started:
            process.kill()
        raise
    return finish(*started)


def config(name: str) -> Any:
    """The tasks by name: the toy and the real ones, very small."""
    from tests.train.toy_task import ToyConfig
    from vasa_jax.train.loop import LoopConfig
    from vasa_jax.train.optim import OptimConfig

    quiet = LoopConfig(log_every=1, picture_every=0, evaluate_every=0, checkpoint_every=0)
    if name == "toy":
        return ToyConfig(noise=0.3, width=16, pure=True, loop=quiet)
    if name == "motion":
        from vasa_jax.audio.encoder import EncoderConfig
        from vasa_jax.data.motions import MotionDataConfig
        from vasa_jax.motion.model import MotionModelConfig
        from vasa_jax.motion.transformer import TransformerConfig
        from vasa_jax.train.motion import MotionTrainConfig

        return MotionTrainConfig(
            model=MotionModelConfig(
                encoder=EncoderConfig(width=16, hidden=16, num_blocks=1),
                transformer=TransformerConfig(depth=1, width=16, num_heads=2),
                window=12,
                past=4,
            ),
            data=MotionDataConfig(batch=8),
            optim=OptimConfig(lr=3e-3, steps=6, warmup=1),
            loop=dataclasses.replace(quiet, evaluate_every=3),
        )
    if name in ("face", "volumetric"):
        from tests.face.tiny_volumetric import TINY
        from vasa_jax.core.config import load_config

        lite = name == "face"
        smoke = load_config(f"configs/{'face_256_lite' if lite else 'face_512'}.py:smoke")
        model = smoke.model if lite else TINY
        return dataclasses.replace(smoke, model=model, batch=4, loop=quiet)
    raise KeyError(name)


def train(one: dict[str, Any]) -> Any:
    """Do a job here; the outcome of the run."""
    from vasa_jax.core.config import override, to_json
    from vasa_jax.train import loop

    cfg = override(config(one["task"]), one["settings"])
    return loop.run(
        cfg.task(), one["workdir"], steps=one["steps"], loop=cfg.loop, seed=cfg.seed,
        config=to_json(cfg),
    )  # fmt: skip


def main() -> None:
    from vasa_jax.train import distributed

    wanted = json.loads(sys.argv[1])
    if wanted["join"]:
        distributed.initialize(**wanted["join"])
    for one in wanted["jobs"]:
        train(one)


if __name__ == "__main__":
    main()
