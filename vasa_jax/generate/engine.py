"""A release on the device: its nets, their compiled functions, and how it samples."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax

from vasa_jax.checkpoint.release import Release, load_release
from vasa_jax.core import config as configs
from vasa_jax.core.errors import UserError
from vasa_jax.face.head.head import head_from_arrays
from vasa_jax.face.warp.autoencoder import Appearance, FaceAutoencoder, FaceConfig, to_uint8
from vasa_jax.face.warp.detail import enlarged
from vasa_jax.generate.offline import GenerateDefaults
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import MotionModelConfig
from vasa_jax.runtime.programs import Program

if TYPE_CHECKING:
    from vasa_jax.generate.live.engine import LiveConfig, LiveEngine


class Engine:
    """A release on the device, with its compiled functions; shared by talkers."""

    def __init__(self, release: Release):
        self.release = release
        missing = [part for part in ("face", "motion", "head") if part not in release.params]
        if missing:
            raise UserError(f"release {release.name} has no {missing[0]} weights; build it again")
        self.motion_config = _stage_config(MotionModelConfig, release.config, "motion")
        face_config = _stage_config(FaceConfig, release.config, "face")
        space = self.motion_config.motion_space
        self.defaults = GenerateDefaults.of(release.config.get("generate", {}), space)
        self.stats = MotionStats.from_json(_motion_stats(release.stats), space)
        self.head = head_from_arrays(release.params["head"])
        self.autoencoder = FaceAutoencoder(face_config, self.head)
        self.face_params = jax.device_put(release.params["face"])
        self.motion_params = jax.device_put(release.params["motion"])
        # What samples unless somebody asks for a sampler: the few-step student if there is one.
        self.quick_params, self.quick_defaults = self.motion_params, self.defaults
        if "student" in release.params:
            self.quick_params = jax.device_put(release.params["student"])
            self.quick_defaults = GenerateDefaults.of(release.config["student"]["generate"], space)
        self.render = Program(self._render, closed_over=(face_config,))
        self.render_fine = Program(self._render_fine, closed_over=(face_config,))
        self.live: dict[LiveConfig, LiveEngine] = {}  # see generate/live/stream.py
        self.retired = False  # another release took its place

    @property
    def size(self) -> int:
        """Side of the model's square in px."""
        return self.autoencoder.cfg.size

    def retire(self) -> None:
        """No new talker will use it; threads that no stream needs end now, others with it."""
        self.retired = True
        for live in tuple(self.live.values()):
            live.rest()

    def _render(self, params: Any, head: Any, appearance: Appearance, motion_BM: Any) -> Any:
        return to_uint8(self.autoencoder.render(params, appearance, motion_BM, head=head))

    def _render_fine(
        self, params: Any, head: Any, appearance: Appearance, detail_RR3: Any, motion_BM: Any
    ) -> tuple[Any, Any]:
        image, origin = self.autoencoder.render_traced(params, appearance, motion_BM, head=head)
        # Lest the enlargement find every pixel anew.
        image, origin = jax.lax.optimization_barrier((image, origin))
        fine = enlarged(image, detail_RR3, appearance.mouth, origin)
        return to_uint8(image), to_uint8(fine)


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


def _stage_config(cls: type, config: Mapping[str, Any], stage: str) -> Any:
    """The net's config from a stage's resolved training config, or given alone."""
    try:
        table = config[stage]
    except KeyError:
        raise UserError(f"the release's config.json has no {stage!r} part") from None
    return configs.from_json(cls, table.get("model", table))


def _motion_stats(stats: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table of motion statistics, wherever the stages put it."""
    table: Any = stats
    while isinstance(table, Mapping) and "names" not in table:
        table = table.get("motion")
    if table is None:
        raise UserError("the release's stats.json has no motion statistics")
    return table
