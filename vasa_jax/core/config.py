"""Configurations: frozen keyword-only dataclasses, chosen by a Python file, saved as plain JSON.

A dataclass stands beside the module it configures; ``configs/*.py`` only pick values, in one
``get_config(variant="base")`` each. Everything here is generic: load such a file, change single
values from the command line with their types checked, write JSON and read it back.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import enum
import importlib.util
import inspect
import json
import os
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from vasa_jax.core.errors import UserError

C = TypeVar("C")


def load_config(spec: str) -> Any:
    """The configuration that ``"path/to/file.py[:variant]"`` names.

    Runs the file and calls its ``get_config(variant)`` ("base" when no variant is given). Raises
    UserError when the file, the function or the variant is not there.
    """
    path_text, variant = _split_spec(spec)
    path = Path(path_text)
    if not path.is_file():
        near = _nearest(path.name, [p.name for p in path.parent.glob("*.py")])
        raise UserError(f"no configuration file {path_text!r}{near}; expected FILE.py[:variant]")
    name = f"_vasa_jax_config_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses and pickling look the module up by name
    module_spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f'{path_text} has no get_config(variant="base")')
    try:
        cfg = module.get_config(variant)
    except (KeyError, ValueError) as error:
        known = getattr(module, "VARIANTS", None)
        hint = f"; it has {', '.join(map(str, known))}" if known else f" ({error})"
        raise UserError(f"{path_text} has no variant {variant!r}{hint}") from error
    if not dataclasses.is_dataclass(cfg) or isinstance(cfg, type):
        raise UserError(f"get_config of {path_text} returned {type(cfg).__name__}, no dataclass")
    return cfg


def _split_spec(spec: str) -> tuple[str, str]:
    # rpartition, because a drive letter ("C:\...") has a colon too.
    path, colon, variant = spec.rpartition(":")
    if not colon or os.sep in variant or variant.endswith(".py") or not path.endswith(".py"):
        return spec, "base"
    return path, variant or "base"


def override(cfg: C, settings: Iterable[str]) -> C:
    """``cfg`` with each ``"dotted.path=value"`` of ``settings`` applied, in order.

    The value is read as the field's annotation says: numbers, booleans (true/false), text,
    ``none``, tuples ("1,2,3" or JSON), enum and Literal names, and JSON objects for nested
    configurations. Raises UserError on an unknown path (with the nearest name), on text that is
    not of the type, and on a value that the dataclass itself refuses.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path.strip():
            raise UserError(f"--set wants NAME=VALUE, got {setting!r}")
        cfg = _set(cfg, path.strip().split("."), text.strip(), done=())
    return cfg


def _set(node: Any, path: list[str], text: str, *, done: tuple[str, ...]) -> Any:
    head, *rest = path
    here = ".".join(done) or "the configuration"
    full = ".".join((*done, *path))
    if isinstance(node, Mapping):
        if not rest:
            new: Any = _parse(text, type(node[head]) if head in node else Any, full)
        elif head in node:
            new = _set(node[head], rest, text, done=(*done, head))
        else:
            raise UserError(f"--set {full}: {here} has no {head!r}{_nearest(head, node)}")
        return {**node, head: new}
    if not dataclasses.is_dataclass(node) or isinstance(node, type):
        raise UserError(f"--set {full}: {here} is a plain value and has nothing named {head!r}")
    names = [f.name for f in dataclasses.fields(node) if f.init]
    if head not in names:
        raise UserError(f"--set {full}: {here} has no {head!r}{_nearest(head, names)}")
    if rest:
        new = _set(getattr(node, head), rest, text, done=(*done, head))
    else:
        new = _parse(text, _field_types(type(node))[head], full)
    try:
        return dataclasses.replace(node, **{head: new})
    except (ValueError, AssertionError, TypeError) as error:
        raise UserError(f"--set {full}={text}: {error}") from error


def to_json(cfg: Any) -> Any:
    """``cfg`` as plain dicts, lists, numbers, text and None: what runs and releases save.

    Raises TypeError on a value that has no such form (an array, a function).
    """
    if dataclasses.is_dataclass(cfg) and not isinstance(cfg, type):
        return {f.name: to_json(getattr(cfg, f.name)) for f in dataclasses.fields(cfg) if f.init}
    if isinstance(cfg, enum.Enum):
        return cfg.name
    if cfg is None or isinstance(cfg, (bool, int, float, str)):
        return cfg
    if isinstance(cfg, Path):
        return str(cfg)
    if isinstance(cfg, Mapping):
        return {str(key): to_json(value) for key, value in cfg.items()}
    if isinstance(cfg, (tuple, list)):
        return [to_json(value) for value in cfg]
    if isinstance(cfg, (set, frozenset)):
        return sorted(to_json(value) for value in cfg)
    raise TypeError(f"{type(cfg).__name__} has no place in a configuration: {cfg!r}")


def from_json(cls: type[C], data: Mapping[str, Any]) -> C:
    """The ``cls`` whose ``to_json`` is ``data``. Fields that are absent keep their default.

    Names in a dataclass's ``RETIRED`` are fields that it had once; they are passed over. Raises
    UserError on unknown names (with the nearest one) and on values of the wrong type.
    """
    return _build(data, cls, cls.__name__)


def _build(value: Any, kind: Any, where: str) -> Any:
    """``value`` of JSON as ``kind`` (a type annotation)."""
    if kind is Any or kind is object or isinstance(kind, TypeVar):
        return value
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _build(value, args[0], where)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        # Exact kinds first, so that an int stays an int in "float | int".
        options = [a for a in args if a is not type(None)]
        options.sort(key=lambda a: not (isinstance(a, type) and type(value) is a))
        errors = []
        for option in options:
            try:
                return _build(value, option, where)
            except UserError as error:
                errors.append(error)
        raise errors[0]
    if origin is Literal:
        if value in args:
            return value
        raise UserError(f"{where}: {value!r} is none of {', '.join(map(str, args))}"
                        f"{_nearest(str(value), map(str, args))}")  # fmt: skip
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(value, kind, where)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        if isinstance(value, str) and value in kind.__members__:
            return kind[value]
        raise UserError(f"{where}: {value!r} is none of {', '.join(kind.__members__)}"
                        f"{_nearest(str(value), kind.__members__)}")  # fmt: skip
    if origin in (tuple, list) or kind in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where}: expected a list, got {value!r}")
        return _build_sequence(value, origin or kind, args, where)
    if origin in (dict, collections.abc.Mapping) or kind is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: expected an object, got {value!r}")
        item = args[1] if len(args) == 2 else Any
        return {key: _build(v, item, f"{where}.{key}") for key, v in value.items()}
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    if kind is type(None) and value is None:
        return None
    if isinstance(kind, type) and kind not in (bool, str, int, float, type(None)):
        if isinstance(value, kind):
            return value
    raise UserError(f"{where}: expected {_type_name(kind)}, got {value!r}")


def _build_dataclass(value: Any, kind: Any, where: str) -> Any:
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: expected an object with the fields of {kind.__name__}")
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    retired = getattr(kind, "RETIRED", ())
    value = {name: v for name, v in value.items() if name not in retired}
    for name in value:
        if name not in fields:
            raise UserError(f"{where} has no {name!r}{_nearest(name, fields)}")
    kinds = _field_types(kind)
    built = {name: _build(v, kinds[name], f"{where}.{name}") for name, v in value.items()}
    try:
        return kind(**built)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"{where}: {error}") from error


def _build_sequence(value: Any, origin: Any, args: tuple[Any, ...], where: str) -> Any:
    if origin is tuple and args and args[-1] is not Ellipsis:
        if len(value) != len(args):
            raise UserError(f"{where}: expected {len(args)} values, got {len(value)}")
        kinds = list(args)
    else:
        kinds = [args[0] if args else Any] * len(value)
    items = [
        _build(v, k, f"{where}[{i}]") for i, (v, k) in enumerate(zip(value, kinds, strict=True))
    ]
    return origin(items)


def _parse(text: str, kind: Any, where: str) -> Any:
    """``text`` of the command line as ``kind``."""
    where = f"--set {where}"
    candidates: list[Any] = []
    lowered = text.lower()
    if lowered in ("none", "null"):
        candidates.append(None)
    if lowered in ("true", "false"):
        candidates.append(lowered == "true")
    try:
        candidates.append(json.loads(text))
    except ValueError:
        pass
    for number in (int, float):  # 1_000, 1e-4, inf
        try:
            candidates.append(number(text))
        except ValueError:
            pass
    if kind is not Any and _takes_sequence(kind):
        inner = text.strip("()[] ")
        candidates.append([_plain(part.strip()) for part in inner.split(",") if part.strip()])
    if kind is str or kind is Path:
        candidates = [text]
    else:
        candidates.append(text)
    first: UserError | None = None
    for candidate in candidates:
        try:
            return _build(candidate, kind, where)
        except UserError as error:
            first = first or error
    raise UserError(f"{where}: expected {_type_name(kind)}, got {text!r}") from first


def _plain(text: str) -> Any:
    for reader in (int, float):
        try:
            return reader(text)
        except ValueError:
            pass
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _takes_sequence(kind: Any) -> bool:
    if kind in (tuple, list) or typing.get_origin(kind) in (tuple, list):
        return True
    return any(_takes_sequence(arg) for arg in typing.get_args(kind) if arg is not type(None)) and (
        typing.get_origin(kind) in (Union, types.UnionType)
    )


def _field_types(cls: type) -> dict[str, Any]:
    """Annotations of a dataclass as types, also under ``from __future__ import annotations``."""
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except NameError:
        # A name that only a type checker sees: take what can be resolved, leave the rest free.
        hints: dict[str, Any] = {}
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # cls is a dataclass here
            annotation = field.type
            if isinstance(annotation, str):
                scope = vars(inspect.getmodule(cls) or sys.modules[cls.__module__])
                try:
                    annotation = eval(annotation, scope)  # noqa: S307  # our own source text
                except NameError:
                    annotation = Any
            hints[field.name] = annotation
        return hints


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; it has {', '.join(known)}" if 0 < len(known) <= 20 else ""
