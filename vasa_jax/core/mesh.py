"""Many devices: a mesh of two axes, and which part of which array lies where.

The devices are ordered in a table of ``data`` rows and ``fsdp`` columns. Both axes split the batch;
parameters are split over ``fsdp`` and copied over ``data``. So ``fsdp=1`` is data parallelism, and
``fsdp=8`` on eight devices leaves each with an eighth of the parameters, of the optimiser and of
the average ("fully sharded", Zhao et al. 2023, arXiv 2304.11277; XLA gathers what a layer needs).

Where an array is split is said by rules over parameter names (``core/tree.py``), the first that
matches wins; without one the largest axis that ``fsdp`` divides is split. It changes where numbers
are, never what they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from vasa_jax.core.errors import UserError
from vasa_jax.core.tree import SEPARATOR, flatten, path_name

PyTree = Any
AXES = ("data", "fsdp")
AUTO = "auto"
WHOLE = "-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How a run uses its devices. One of ``data`` and ``fsdp`` may be -1: all that are left.

    A rule is (regular expression searched in the parameter's name, axes), the axes one per
    dimension, as in ``("attention/.*/kernel", "-,fsdp")``; "-" leaves a dimension whole, "" the
    array, "auto" asks for the automatic choice.
    """

    data: int = -1
    fsdp: int = 1
    devices: int = 0  # that are used, the first ones; 0: all; -1: as many as divide the batch
    rules: tuple[tuple[str, str], ...] = ()
    whole_below: int = 2**14  # scalars; the automatic choice leaves smaller arrays whole

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp)
        if any(n < 1 and n != -1 for n in sizes) or sizes == (-1, -1):
            raise ValueError("mesh: data and fsdp are 1 or more, and one of them may be -1")
        if self.devices < -1:
            raise ValueError("mesh: devices is a number, 0 (all) or -1 (as many as fit the batch)")
        for expression, axes in self.rules:
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(
                    f"mesh: the rule {expression!r} is no expression: {error}"
                ) from None
            wrong = [a for a in _axes(axes) if a is not None and a not in AXES]
            if axes != AUTO and wrong:
                raise ValueError(
                    f"mesh: the rule {expression!r} names the axis {wrong[0]!r}; there are "
                    f"{', '.join(AXES)} and {WHOLE!r}"
                )


def _axes(text: str) -> list[str | None]:
    names = [part.strip() for part in text.split(",")] if text.strip() else []
    return [None if name == WHOLE else name for name in names]


def mesh_sizes(cfg: MeshConfig, count: int) -> tuple[int, int]:
    """Sizes of ``AXES`` for ``count`` devices. UserError when they do not come out even."""
    data, fsdp = cfg.data, cfg.fsdp
    known = fsdp if data == -1 else data
    if -1 in (data, fsdp):
        rest = count // known if count % known == 0 else 0
        data, fsdp = (rest, fsdp) if data == -1 else (data, rest)
    if data * fsdp != count:
        asked = f"{cfg.data} x {cfg.fsdp}".replace("-1", "?")
        raise UserError(
            f"loop.mesh (data x fsdp) is {asked}, which does not fit {count} "
            f"device{'s' * (count != 1)}; change loop.mesh.data or loop.mesh.fsdp, or hide devices "
            "(CUDA_VISIBLE_DEVICES)"
        )
    return data, fsdp


def used_devices(cfg: MeshConfig, devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Those of ``devices`` that ``cfg.devices`` asks for, as many of each process.

    -1 must have been replaced (``fitted``), and counts as all. UserError when there are too few.
    """
    found = sorted(devices, key=lambda d: (d.process_index, d.id))
    if cfg.devices <= 0:
        return found
    blocks = [list(block) for _, block in itertools.groupby(found, lambda d: d.process_index)]
    each, rest = divmod(cfg.devices, len(blocks))
    if rest or each > min(map(len, blocks)):
        raise UserError(
            f"loop.mesh.devices is {cfg.devices}; there are {len(found)} devices of {len(blocks)} "
            "process(es), and each gives as many"
        )
    return [device for block in blocks for device in block[:each]]


def make_mesh(cfg: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over ``devices`` (default: all of all processes), each process's in one block.

    UserError when ``cfg`` does not fit them.
    """
    found = used_devices(cfg, devices or jax.devices())
    table = np.asarray(found).reshape(mesh_sizes(cfg, len(found)))
    return Mesh(table, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def fitted(cfg: MeshConfig, rows: int, parts: int, local: int, processes: int = 1) -> MeshConfig:
    """``cfg`` with as many devices as ``rows`` in ``parts`` microbatches divide over, if it is to.

    ``local`` is how many each of the ``processes`` has. Where no number fits it stays all of them,
    which ``check_batch`` then refuses.
    """
    if cfg.devices != -1:
        return cfg
    for each in range(local, 0, -1):
        count = each * processes
        if rows % (count * parts):
            continue
        with contextlib.suppress(UserError):
            mesh_sizes(cfg, count)
            return dataclasses.replace(cfg, devices=count)
    return dataclasses.replace(cfg, devices=0)


def abstract_mesh(cfg: MeshConfig, count: int) -> AbstractMesh:
    """A mesh of ``count`` devices that need not exist: programs can be lowered for it, not run."""
    sizes = mesh_sizes(cfg, count)
    return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))


# --- parameters ---------------------------------------------------------------------------------


def partition(
    cfg: MeshConfig, sizes: Mapping[str, int], name: str, shape: Sequence[int]
) -> PartitionSpec:
    """How the array ``name`` of ``shape`` is split. UserError where its rule does not fit it."""
    for expression, axes in cfg.rules:
        if not re.search(expression, name):
            continue
        if axes == AUTO:
            break
        spec = _axes(axes)
        where = f"loop.mesh.rules: {expression!r} -> {axes!r} does not fit {name} {list(shape)}"
        if len(spec) > len(shape):
            raise UserError(f"{where}: it has {len(shape)} dimensions")
        for axis, length in zip(spec, shape, strict=False):
            if axis is not None and length % sizes[axis]:
                raise UserError(f"{where}: {length} is not divisible by {axis}={sizes[axis]}")
        return PartitionSpec(*spec)
    parts = sizes["fsdp"]
    able = [i for i, n in enumerate(shape) if n % parts == 0]
    if parts == 1 or not able or np.prod(shape) < cfg.whole_below:
        return PartitionSpec()
    largest = max(able, key=lambda i: shape[i])
    return PartitionSpec(*(None,) * largest, "fsdp")


def shardings(cfg: MeshConfig, mesh: Mesh | AbstractMesh, tree: PyTree, params: PyTree) -> PyTree:
    """Where every leaf of ``tree`` lies: a tree like it of ``NamedSharding``.

    ``tree`` is a training state (arrays or shapes) and ``params`` its parameters. A leaf whose name
    ends in a parameter's, and which is shaped like it (moments of the optimiser, the average), lies
    where that parameter does. UserError for a rule that no parameter is named by.
    """
    sizes = dict(mesh.shape)
    known = {name: tuple(leaf.shape) for name, leaf in flatten(params).items()}
    for expression, _ in cfg.rules:
        if not any(re.search(expression, name) for name in known):
            raise UserError(
                f"loop.mesh.rules: {expression!r} is found in no parameter's name "
                f"(one is {max(known, key=len)!r})"
            )

    def place_of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        parts = path_name(path).split(SEPARATOR)
        for i in range(len(parts)):
            name = SEPARATOR.join(parts[i:])
            if known.get(name) == tuple(leaf.shape):
                return NamedSharding(mesh, partition(cfg, sizes, name, leaf.shape))
        automatic = dataclasses.replace(cfg, rules=())
        return NamedSharding(mesh, partition(automatic, sizes, parts[-1], leaf.shape))

    return jax.tree_util.tree_map_with_path(place_of, tree)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(tree: PyTree, target: PyTree) -> PyTree:
    """``tree`` as arrays with the shardings ``target`` (one, or a tree of them).

    With several processes, values of the host must be the same in all of them.
    """
    if isinstance(target, NamedSharding):
        target = jax.tree.map(lambda _: target, tree)

    def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
        everywhere = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
        if everywhere or jax.process_count() == 1:
            return jax.device_put(leaf, sharding)
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(put, tree, target)


def shard_bytes(tree: PyTree, target: PyTree) -> int:
    """Bytes of ``tree`` (arrays or shapes) on one device under the shardings ``target``."""
    total = 0
    for leaf, sharding in zip(jax.tree.leaves(tree), jax.tree.leaves(target), strict=True):
        item = 4 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize
        total += int(np.prod(sharding.shard_shape(tuple(leaf.shape)))) * item
    return total


# --- batches ------------------------------------------------------------------------------------


def row_mask(batch: PyTree, shared: Sequence[str] = (), rows: int | None = None) -> PyTree:
    """Which leaves have one entry per example: a tree like ``batch`` of bools.

    Those are all whose first axis has ``rows`` entries (default: as many as that of the first array
    not in ``shared``), except what lies under the names ``shared``.
    """
    count = batch_rows(batch, shared) if rows is None else rows

    def one(path: tuple[Any, ...], leaf: Any) -> bool:
        outer = path_name(path).split(SEPARATOR)[0]
        return outer not in shared and np.ndim(leaf) > 0 and leaf.shape[0] == count

    return jax.tree_util.tree_map_with_path(one, batch)


def batch_rows(batch: PyTree, shared: Sequence[str] = ()) -> int:
    """Examples in a batch: the first axis of the first array that has one; 1 without any."""
    for name, leaf in flatten(batch).items():
        if np.ndim(leaf) > 0 and name.split(SEPARATOR)[0] not in shared:
            return int(leaf.shape[0])
    return 1


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Rows over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def check_batch(
    mesh: Mesh | AbstractMesh, rows: int, parts: int = 1, option: str = "batch"
) -> None:
    """UserError unless ``rows`` examples divide evenly over devices and ``parts`` microbatches.

    ``option`` is the setting that says how many there are.
    """
    step = mesh.size * parts
    if rows % step:
        micro = f" and {parts} microbatches (optim.accumulate)" if parts > 1 else ""
        devices = f"{mesh.size} device{'s' * (mesh.size != 1)}"
        fewer = " or use fewer devices (--set loop.mesh.devices=N)" if mesh.size > 1 else ""
        raise UserError(
            f"a batch of {rows} does not divide over {devices}{micro}; make it a multiple of "
            f"{step}, as in --set {option}={-(-rows // step) * step},{fewer}".rstrip(",")
        )


def process_rows(mesh: Mesh, rows: int) -> slice:
    """The examples of a batch of ``rows`` that this process has to load."""
    indices = batch_sharding(mesh).addressable_devices_indices_map((rows,)).values()
    spans = [index[0].indices(rows)[:2] for index in indices if index is not None]
    return slice(min(a for a, _ in spans), max(b for _, b in spans))


def place_batch(
    mesh: Mesh, batch: PyTree, shared: Sequence[str], rows: int | None = None
) -> PyTree:
    """A batch of the host as arrays over the mesh: rows split, everything else copied.

    With several processes ``batch`` holds this process's rows of ``rows`` in all.
    """
    if mesh.size == 1 and jax.default_backend() == "cpu":
        return batch  # there a numpy array is as good, and stays out of JAX's memory
    split, whole = batch_sharding(mesh), replicated(mesh)
    mask = row_mask(batch, shared)
    if jax.process_count() == 1:
        target = jax.tree.map(lambda is_row: split if is_row else whole, mask)
        return jax.device_put(batch, target)

    def put(leaf: Any, is_row: bool) -> jax.Array:
        if not is_row:
            return place(leaf, whole)
        shape = (rows, *np.shape(leaf)[1:])
        return jax.make_array_from_process_local_data(split, np.asarray(leaf), shape)

    return jax.tree.map(put, batch, mask)


def cut_rows(batch: PyTree, rows: slice, shared: Sequence[str] = ()) -> PyTree:
    """Only some rows of a whole batch of the host."""
    return jax.tree.map(lambda x, is_row: x[rows] if is_row else x, batch, row_mask(batch, shared))
