"""Programs that outlive their process: the second maker of one neither traces nor compiles."""

from __future__ import annotations

import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.runtime import compile_cache, programs
from vasa_jax.runtime.programs import Program

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VASA_CACHE", str(tmp_path))
    return tmp_path / "programs"


def counted(scale=2.0):
    """A function, and the list that grows whenever it is traced."""
    traced = []

    def function(table, x, power=1):
        traced.append(power)
        return {"y": (table["w"] * x * scale) ** power}

    return function, traced


def test_a_second_program_is_read_and_not_traced(cache):
    table = {"w": np.float32(3.0)}
    for round in range(2):
        function, traced = counted()
        program = Program(function, static=("power",))
        for power in (1, 2):
            y = program(table, X, power=power)["y"]
            np.testing.assert_allclose(y, (6.0 * X) ** power)
        assert traced == ([1, 2] if round == 0 else [])
        assert program.count == 2 and len(list(cache.iterdir())) == 2


def test_shapes_dtypes_and_what_is_closed_over_are_told_apart():
    function, traced = counted(2.0)
    program = Program(function, closed_over=(2.0,))
    table = {"w": np.float32(1.0)}
    program(table, X)
    program(table, X[:1])
    program(table, X.astype(np.int32).astype(np.float32))  # the first form again
    assert len(traced) == 2
    other, traced = counted(5.0)
    np.testing.assert_allclose(Program(other, closed_over=(5.0,))(table, X)["y"], 5.0 * X)
    assert traced == [1]


def test_other_surroundings_make_another_program(monkeypatch):
    for words in (("source a",), ("source b",)):
        monkeypatch.setattr(programs, "_surroundings", lambda words=words: words)
        function, traced = counted()
        Program(function)({"w": np.float32(1.0)}, X)
        assert traced == [1]


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_file_is_compiled_anew(cache, damage):
    table = {"w": np.float32(1.0)}
    Program(counted()[0])(table, X)
    (file,) = cache.iterdir()
    data = file.read_bytes()
    file.write_bytes(data[:-9] if damage is None else damage)
    function, traced = counted()
    np.testing.assert_allclose(Program(function)(table, X)["y"], 2.0 * X)
    assert traced == [1] and file.stat().st_size > 1000


def test_a_donated_argument_is_used_up_by_a_program_that_was_read():
    def advance(state, x):
        return state + x

    for _ in range(2):
        state = jax.device_put(X)
        out = Program(advance, donate=("state",))(state, X)
        np.testing.assert_allclose(out, 2 * X)
        assert state.is_deleted()


def test_inside_of_another_trace_it_is_a_plain_function(cache):
    program = Program(lambda x: x * 2.0)
    np.testing.assert_allclose(jax.jit(lambda x: program(x) + 1.0)(X), 2 * X + 1)
    assert not list(cache.iterdir())


def test_calls_out_of_a_program_are_not_kept(cache):
    solve = Program(lambda a: jnp.linalg.cholesky(a))
    np.testing.assert_allclose(solve(np.eye(3, dtype=np.float32)), np.eye(3))
    assert not list(cache.iterdir())


def test_nothing_is_kept_when_caches_are_off(cache, monkeypatch):
    monkeypatch.setenv("VASA_CACHE", "off")
    function, traced = counted()
    program = Program(function)
    program({"w": np.float32(1.0)}, X)
    assert program.count == 1 and traced == [1] and not cache.exists()


def test_the_folder_stays_below_its_limit(cache, monkeypatch):
    monkeypatch.setattr(programs, "LIMIT_BYTES", 1)
    for rows in (1, 2):
        Program(lambda x: x + 1.0)(np.zeros(rows, np.float32))
    assert len(list(cache.iterdir())) == 0


def test_jaxs_cache_is_as_before_after_a_bypass():
    was = jax.config.jax_enable_compilation_cache
    with compile_cache.bypassed():
        assert not jax.config.jax_enable_compilation_cache
    assert jax.config.jax_enable_compilation_cache == was


def test_what_was_used_last_is_read_while_nobody_waits(cache, monkeypatch):
    table = {"w": np.float32(3.0)}
    monkeypatch.setattr(programs, "_used", {})
    first, second = (Program(counted(scale)[0], closed_over=(scale,)) for scale in (2.0, 5.0))
    first(table, X), second(table, X)
    programs.remember("test")
    (cache / "test.list").write_text((cache / "test.list").read_text() + "\ngone.program\nx")
    monkeypatch.setattr(programs, "_coming", programs._Coming())
    read = []
    load = programs._load
    monkeypatch.setattr(programs, "_load", lambda path: read.append(path.name) or load(path))
    programs.prefetch("test")
    for scale in (5.0, 2.0):  # in another order than noted, so one may be read by either thread
        function, traced = counted(scale)
        y = Program(function, closed_over=(scale,))(table, X)["y"]
        np.testing.assert_allclose(y, 3.0 * X * scale)
        assert not traced
    assert sorted(n for n in read if n != "gone.program") == sorted(
        p.name for p in cache.glob("*.program")
    )
    programs.prefetch("never remembered")


def test_a_process_that_ends_early_waits_for_the_program_being_read():
    """And for no other: a thread that is stopped inside of XLA takes the whole process with it."""
    script = """
import threading, time
from pathlib import Path
from vasa_jax.runtime import programs

begun = threading.Event()

def load(path):
    begun.set()
    time.sleep(0.5)
    print(path.name, flush=True)

programs._load = load
programs._coming.begin([Path("one"), Path("two"), Path("three")])
begun.wait()
raise SystemExit(2)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "one\n", "")


def test_a_program_can_be_forgotten():
    function, traced = counted()
    program = Program(function)
    table = {"w": np.float32(1.0)}
    program(table, X)
    program.clear()
    assert program.count == 0
    program(table, X)  # read again, not traced again
    assert len(traced) == 1 and program.count == 1


def test_after_a_call_with_arrays_it_can_still_be_traced(cache):
    """A compiled program takes no tracers: jit, grad and vmap of the function are meant then."""
    program = Program(lambda x, y: (x * y).sum(), static=())
    assert program(X, X) == np.float32((X * X).sum())
    np.testing.assert_allclose(jax.jit(lambda x: program(x, x) + 1.0)(X), (X * X).sum() + 1)
    np.testing.assert_allclose(jax.grad(program)(X, X), X)
    np.testing.assert_allclose(jax.vmap(program)(X, X), (X * X).sum(1))
    assert program(X, X) == np.float32((X * X).sum())  # and back
    assert len(list(cache.iterdir())) == 1


def test_arrays_on_another_device_are_no_use_to_a_kept_program(monkeypatch):
    program = Program(lambda x: x + 1.0)
    program(X)

    def refuse(**unused):
        raise ValueError("compiled for other shardings")

    monkeypatch.setattr(program, "_ready", dict.fromkeys(program._ready, refuse))
    with pytest.raises(ValueError, match="other shardings"):
        program(X)
    monkeypatch.setattr(programs, "_is_elsewhere", lambda leaf: True)
    np.testing.assert_allclose(program(X), X + 1)


def test_programs_of_a_folder_that_cannot_be_written_are_used(cache, monkeypatch):
    table = {"w": np.float32(3.0)}
    Program(counted()[0])(table, X)
    before = {p.name: p.read_bytes() for p in cache.iterdir()}

    def read_only(*unused, **options):
        raise OSError(30, "Read-only file system")

    writable = programs.os.access
    monkeypatch.setattr(
        programs.os, "access", lambda path, mode: mode != programs.os.W_OK and writable(path, mode)
    )
    for method in ("write_bytes", "replace", "unlink"):
        monkeypatch.setattr(programs.Path, method, read_only)
    programs._folder.cache_clear()
    function, traced = counted()
    program = Program(function)
    np.testing.assert_allclose(program(table, X)["y"], 6.0 * X)
    assert traced == []
    program(table, X[:1])  # not there: compiled, and not kept
    programs.remember("test")
    assert {p.name: p.read_bytes() for p in cache.iterdir()} == before
    monkeypatch.setattr(jax.config, "update", lambda *setting: settings.update([setting]))
    settings: dict = {}
    assert compile_cache.enable() == cache.parent / "xla"
    assert settings["jax_persistent_cache_min_compile_time_secs"] == np.inf


def test_parts_of_dead_processes_leave_the_folder(cache):
    cache.mkdir()
    old = cache / ".gone-1234.2000000000.part.program"
    old.write_bytes(b"half")
    Program(counted()[0])({"w": np.float32(3.0)}, X)
    assert not old.exists() and len(list(cache.iterdir())) == 1


def test_threads_that_bypass_jaxs_cache_do_not_switch_it_on_for_each_other():
    """The first to leave switched it on under the second, who then left it off for ever."""
    inside, leave, seen = threading.Event(), threading.Event(), []

    def second():
        with compile_cache.bypassed():
            inside.set()
            leave.wait(60)
            seen.append(jax.config.jax_enable_compilation_cache)

    thread = threading.Thread(target=second)
    before = jax.config.jax_enable_compilation_cache
    with compile_cache.bypassed():
        thread.start()
        assert inside.wait(60)
    leave.set()
    thread.join()
    assert seen == [False] and jax.config.jax_enable_compilation_cache == before
