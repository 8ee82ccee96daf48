"""A release on the device: its nets, their compiled functions, and how it samples."""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Mapping
from typing import Any, Protocol

import jax

from vasa_jax.checkpoint.release import Release, load_release
from vasa_jax.core import config as configs
from vasa_jax.core.errors import UserError
from vasa_jax.face.faces import build_face, space_of_face
from vasa_jax.face.head.head import head_from_arrays
from vasa_jax.generate.drawer import Drawer
from vasa_jax.generate.offline import GenerateDefaults
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import MotionModelConfig


class Rests(Protocol):
    """What of live streams an engine knows: that it can rest."""

    def rest(self) -> None: ...


class Engine(Drawer):
    """A release on the device, with its compiled functions; shared by talkers."""

    def __init__(self, release: Release):
        self.release = release
        missing = [part for part in ("face", "motion", "head") if part not in release.params]
        if missing:
            raise UserError(f"release {release.name} has no {missing[0]} weights; build it again")
        motion = _stage(release.config, "motion")
        self.motion_config = configs.from_json(MotionModelConfig, motion.get("model", motion))
        table, params = _stage(release.config, "face"), release.params["face"]
        head, space = head_from_arrays(release.params["head"]), space_of_face(table, params)
        space.require(self.motion_config.space, "the motion model")
        super().__init__(build_face(table, head, space=space), params, head)
        self.defaults = GenerateDefaults.of(release.config.get("generate", {}), space)
        self.stats = MotionStats.from_json(_motion_stats(release.stats), space)
        self.motion_params = jax.device_put(release.params["motion"])
        # What samples unless somebody asks for a sampler: the few-step student if there is one.
        self.quick_params, self.quick_defaults = self.motion_params, self.defaults
        if "student" in release.params:
            self.quick_params = jax.device_put(release.params["student"])
            self.quick_defaults = GenerateDefaults.of(release.config["student"]["generate"], space)
        self.live: dict[Hashable, Rests] = {}  # engines of live streams (generate/live/engine.py)
        self.retired = False  # another release took its place

    def retire(self) -> None:
        """No new talker will use it; threads that no stream needs end now, others with it."""
        self.retired = True
        for live in tuple(self.live.values()):
            live.rest()


_engines: dict[str, Engine] = {}
_engines_lock = threading.Lock()


def engine_for(release: Release | str | os.PathLike[str]) -> Engine:
    """The engine of a release; the last one is kept, so that a second portrait starts at once.

    The one before is retired: talkers that have it keep it, with its streams.
    """
    if not isinstance(release, Release):
        release = load_release(os.fspath(release))
    with _engines_lock:
        if release.sha256 not in _engines:
            engine = Engine(release)
            for old in _engines.values():
                old.retire()
            _engines.clear()
            _engines[release.sha256] = engine
        return _engines[release.sha256]


def _stage(config: Mapping[str, Any], stage: str) -> Any:
    """A stage's resolved training config, or that of its nets alone."""
    try:
        return config[stage]
    except KeyError:
        raise UserError(f"the release's config.json has no {stage!r} part") from None


def _motion_stats(stats: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table of motion statistics, wherever the stages put it."""
    table: Any = stats
    while isinstance(table, Mapping) and "names" not in table:
        table = table.get("motion")
    if table is None:
        raise UserError("the release's stats.json has no motion statistics")
    return table
