"""Every layer of ours against its twin: python -m tools.side_by_side.parity SIZE [quick].

Float32, both on the CPU, both with our inputs, so that a gap is that layer's own. The lite model
has the release's weights, the full one random weights of the right scale. Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from tools.side_by_side.scenes import FullScene, LiteScene, Scene, scene, window_inputs
from tools.torch_ref import hairline, inpaint, lite_face, raster, volumetric, weights
from tools.torch_ref import head as twin_head
from tools.torch_ref.motion import MotionModel as TwinMotion
from tools.torch_ref.rolling import Rolling, RollingState
from vasa_jax.core.types import Controls
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.pose import canonical_from_view, view_from_canonical
from vasa_jax.face.volume import decoder as volume_decoder
from vasa_jax.face.volume.autoencoder import VolumetricAutoencoder
from vasa_jax.face.warp import decoder as renderer
from vasa_jax.face.warp.autoencoder import FaceAutoencoder
from vasa_jax.generate import rolling
from vasa_jax.motion.model import MotionModel

q = weights.tensors
ALLOWED = 5e-6  # of the deviation of a layer's results, per layer of a net about
BORDER = 2e-3  # share of pixels on edges of triangles, which either side may give to a neighbour


def front(x: Any) -> Tensor:
    return q(np.moveaxis(np.asarray(x), -1, 1))


def back(x: Tensor) -> np.ndarray:
    return x.movedim(1, -1).numpy()


class Table:
    """Rows of the layers compared."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, layer: str, expected: Any, made: Any, depth: int = 1) -> None:
        """Largest gap in deviations of what is expected; ``depth`` layers of rounding allowed."""
        expected = np.asarray(expected, np.float64)
        made = np.asarray(made, np.float64)
        if expected.shape != made.shape:
            raise ValueError(f"{layer}: {made.shape} instead of {expected.shape}")
        gap = float(np.abs(made - expected).max() / max(expected.std(), 1e-9))
        self._row(layer, expected.shape, gap, ALLOWED * depth)

    def share(self, layer: str, same: np.ndarray) -> None:
        """Share of pixels that differ."""
        self._row(f"{layer} (share that differs)", same.shape, float(1.0 - same.mean()), BORDER)

    def _row(self, layer: str, shape: tuple[int, ...], gap: float, allowed: float) -> None:
        row = {"layer": layer, "shape": list(shape), "gap": gap, "allowed": allowed}
        self.rows.append(row | {"ok": bool(gap <= allowed)})


def motion_layers(table: Table, scene: Scene, part: str) -> None:
    """Audio encoder, one call of the transformer, a whole guided window."""
    cfg, model, params = scene.rolling(part), scene.motion, scene.motion_params(part)
    net = weights.load(TwinMotion(model), params)
    ours, variables = MotionModel(model), {"params": params}
    rng = np.random.default_rng(11)
    b, k, w = 1, model.past, model.window
    features = rng.normal(size=(b, k + w + model.lookahead_frames, model.features.dim))
    features = features.astype(np.float32)
    valid = np.ones(features.shape[:2], bool)
    tokens = jax.jit(lambda p: ours.apply({"params": p}, features, valid, {}, method="encode"))(
        params
    )
    table.add("audio encoder", tokens, net.encode(q(features), q(valid), {}), 10)
    noisy = rng.normal(size=(b, w, model.motion_space.dim)).astype(np.float32)
    past = rng.normal(size=(b, k, model.motion_space.dim)).astype(np.float32)
    there, shown, rows = np.ones((b, k), bool), np.ones((b, w), bool), Controls.none(b, w)
    t = np.array([0.7], np.float32)
    expected = jax.jit(lambda v: ours.apply(
        v, noisy, t, method="denoise", audio_BAD=tokens, past_BKM=past, past_valid_BK=there,
        motion_valid_BT=shown, controls=rows, keep={},
    ))(variables)  # fmt: skip
    prepared = net.prepare(q(tokens), q(past), q(there), None, q(rows), {})
    table.add("motion transformer", expected, net.denoise(q(noisy), q(t), prepared), 20)
    state = rolling.init_state(model, jnp.arange(b))
    inputs = window_inputs(model, cfg, b)
    leading = [inputs.pop(n) for n in ("audio_BAD", "valid_BA", "controls", "scales")]
    noise = rolling._frame_noise(state.key, state.frame, cfg.frames(model), 0)
    step = jax.jit(rolling.step, static_argnums=(1, 2))
    after, motion = step(params, model, cfg, state, *leading, **inputs)
    new, made = Rolling(net, cfg).step(
        RollingState.fresh(model, b, "cpu"), *q(leading), **q(inputs), noise=q(noise)
    )
    branches = f"{cfg.steps} steps, {1 + len(cfg.guided)} branches"
    table.add(f"rolling step ({branches})", motion, made, 20 * cfg.steps)
    table.add("rolling state: past motion", after.past_motion, new.past_motion, 20 * cfg.steps)


def lite_layers(table: Table, scene: LiteScene) -> None:
    """The lite face from the head to the picture."""
    cfg = scene.face
    model = FaceAutoencoder(cfg, scene.head)
    params = scene.params["face"]
    twin = weights.load(lite_face.LiteFace(cfg), params)
    head = twin_head.head_tensors(scene.head, "cpu")
    own, placement, driving = scene.own, scene.placement, scene.driving[:2]

    def net(method: Callable, *arguments: Any) -> Any:
        call = jax.jit(lambda p, *a: model.nets.apply({"params": p}, *a, method=method))
        return call(params, *arguments)

    @jax.jit
    def portrait(head, image):
        geometry, layers = model.source_layers(head, image, scene.identity, own, placement)
        pose = jax.vmap(lambda m: heads.drive(own, placement, m))(driving)
        own_pose = jax.tree.map(lambda a: a[None], heads.absolute_pose(own, placement))
        return geometry, layers, pose, own_pose

    geometry, layers, pose, own_pose = portrait(model.head, scene.image)
    given = raster.SourceGeometry(*q(geometry))
    mine = raster.place_source(head, q(scene.identity), q(own), q(placement), size=cfg.size)
    table.add("portrait: head", geometry.placed, mine.placed)
    table.share("portrait: openings", (mine.opening.numpy() == geometry.opening).all(-1))
    image = front(scene.image[None])
    skin = inpaint.skin_layer(image, given.opening)
    table.add("portrait: skin layer", layers[None, ..., 3:], back(skin), 3)
    rim = mine.rim * (1.0 - hairline.hair(image[0], mine))
    table.share("portrait: rim", np.abs(rim.numpy() - geometry.rim) < 1e-4)
    poses, source = twin_head.Pose(*q(tuple(pose))), twin_head.Pose(*q(tuple(own_pose)))
    opening = np.asarray(geometry.opening)[None]
    posed, z_id = net(lambda m, i, o: m.appearance(i, o), scene.image[None], opening)
    made_posed, made_id = twin.appearance(torch.cat([image, front(opening)], 1))
    table.add("appearance encoder: volume", posed, back(made_posed), 10)
    table.add("appearance encoder: identity", z_id, made_id, 10)
    offset = net(
        lambda m, e, g, z: m.warp_source(m.dynamics(e, g) + z), own_pose.expression,
        own_pose.gaze, z_id,
    )  # fmt: skip
    table.add("source warp generator", offset, twin.offset(twin.warp_source, q(z_id), source), 6)
    canonical = jax.jit(renderer.to_canonical)(posed, own_pose, offset)
    made = twin.resample(front(posed), source, q(offset), inwards=True)
    table.add("3D warp to canonical", canonical, back(made), 5)
    volume = net(lambda m, v: m.volume(v), canonical)
    table.add("G_3D", volume, back(twin.volume(front(canonical))), 6)

    appearance = model._encode(params, model.head, scene.image, scene.identity, own, placement)
    warped, *flat = jax.jit(model.warp_pose)(model.head, appearance, pose)
    maps, (contour, lashes, throat) = np.stack(flat[0], 1), (plane[:, None] for plane in flat[1:])
    kept = lite_face.Appearance(
        front(appearance.layers[None]), given, front(appearance.volume[None]),
        q(appearance.z_id[None]), q(appearance.irises),
        q(appearance.mouth),
    )  # fmt: skip
    made_warped, made_maps, made_contour, made_lashes, made_throat = twin.warp(head, kept, poses)
    table.share("driver: raster and maps", np.abs(made_maps.numpy() - maps).max(1) < 1e-3)
    table.share(
        "driver: warped picture", np.abs(back(made_warped) - np.asarray(warped)).max(-1) < 0.01
    )
    table.share("driver: contours", np.abs(made_contour.numpy() - contour) < 0.01)
    table.share("driver: lashes", np.abs(made_lashes.numpy() - lashes) < 0.01)
    table.share("driver: below the jaw", made_throat.numpy() == throat)
    picture = jax.jit(model.render_pose)(params, model.head, appearance, pose)
    finished = twin.finish(front(warped), *q((maps, contour, lashes, throat)), kept, poses)
    table.add("decoder and picture, given the warp", picture, back(finished), 25)
    whole = twin.render(head, kept, q(driving))
    levels = np.abs(back(whole) - np.asarray(picture)).max(-1) * 127.5
    table.share("whole render, within one level", levels <= 1.0)


def full_layers(table: Table, scene: FullScene) -> None:
    """The full face, net by net."""
    cfg = scene.face
    model = VolumetricAutoencoder(cfg)
    params = scene.face_params(cfg)
    twin = weights.load(volumetric.VolumetricFace(cfg), params)

    def net(method: Callable, *arguments: Any) -> Any:
        call = jax.jit(lambda p, *a: model.nets.apply({"params": p}, *a, method=method))
        return call(params, *arguments)

    image, mask = scene.image[None], scene.mask[None]
    pose, z_dyn = scene.driving[:1, :7], scene.driving[:1, 7:]
    rng = np.random.default_rng(12)
    k = cfg.dynamics_size
    face = rng.uniform(-1, 1, (1, k, k, 3)).astype(np.float32)
    table.add("E_dyn", net(lambda m, x: m.encode_dynamics(x), face), twin.dynamics(front(face)), 25)
    seen = image * mask
    z_id = net(lambda m, x: m.identity(x), seen)
    table.add("identity encoder", z_id, back(twin.identity(front(seen))), 50)
    posed = net(lambda m, x: m.encoder(x), seen)
    table.add("appearance encoder", posed, back(twin.encoder(front(seen))), 30)
    offset = net(lambda m, z, i: m.warp_source(z, i), z_dyn, z_id)
    table.add("warp generator", offset, twin.warp_source(q(z_dyn), front(z_id)), 25)
    matrix = jax.vmap(view_from_canonical)(pose)
    canonical = jax.jit(volume_decoder.to_canonical)(posed, matrix, offset)
    made = twin.resample(front(posed), q(pose), q(offset), inwards=True)
    table.add("3D warp to canonical", canonical, back(made), 10)
    volume = net(lambda m, v: m.volume(v), canonical)
    table.add("G_3D", volume, back(twin.volume(front(canonical))), 30)
    matrix = jax.vmap(canonical_from_view)(pose)
    view = jax.jit(volume_decoder.from_canonical)(volume, matrix, offset)
    made = twin.resample(front(volume), q(pose), q(offset), inwards=False)
    table.add("3D warp to driver", view, back(made), 10)
    picture = net(lambda m, v: m.decoder(v), view)
    table.add("G_2D", picture, back(twin.decoder(front(view))), 40)


def layer_rows(size: str, quick: bool) -> dict[str, Any]:
    """Rows and a note on the weights."""
    given, table = scene(size, quick), Table()
    with torch.no_grad():
        if isinstance(given, LiteScene):
            for part in ("window", "guided"):
                motion_layers(table, given, part)
            lite_layers(table, given)
            note = "Weights of the release; the rolling steps are the student's and the full one's."
        else:
            motion_layers(table, given, "window")
            full_layers(table, given)
            n, volume = given.face.size, "x".join(map(str, given.face.volume))
            note = f"Random weights; {n} px, volume {volume}."
    note += (
        " Gaps are the largest, in deviations of the layer's result; rasters are compared by the"
        " share of pixels that differ, on edges of triangles."
    )
    return {"rows": table.rows, "note": note}


if __name__ == "__main__":
    print(json.dumps(layer_rows(sys.argv[1], sys.argv[2:] == ["quick"])))
