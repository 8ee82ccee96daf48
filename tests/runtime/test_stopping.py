"""A program that was asked to end says so at once and ends, whatever its threads are doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and locks of Linux")

LISTEN = "from vasa_jax.runtime import stopping; stopping.listen()\n"
# The main thread waits inside of C for ever, where no exception reaches it, as in a compilation: it
# asks for a lock that it holds already. Another thread speaks when that has surely begun.
DEAF = """
import ctypes, threading
threading.Timer(0.5, print, ("ready",), {"flush": True}).start()
lock = ctypes.create_string_buffer(64)
while True:
    ctypes.CDLL(None).pthread_mutex_lock(lock)
"""


def begun(script: str, **options) -> subprocess.Popen:
    """A process that runs ``script``, once it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", LISTEN + script], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **options,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process: subprocess.Popen) -> tuple[int, str]:
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize("number, status, words", [
    (signal.SIGINT, 130, "interrupted"),
    (signal.SIGTERM, 143, "asked to end (SIGTERM)"),
    (signal.SIGHUP, 129, "hung up"),
])  # fmt: skip
def test_a_main_thread_that_cannot_hear_is_ended(
    number: signal.Signals, status: int, words: str, tmp_path: Path
) -> None:
    script = (
        "from vasa_jax.io.atomic import replacing\n"
        f"with replacing({str(tmp_path / 'k.mp4')!r}) as part:\n"
        "    part.write_text('half')\n" + DEAF.replace("\n", "\n    ")
    )
    process = begun(script)
    assert len(os.listdir(tmp_path)) == 1
    process.send_signal(number)
    first = time.monotonic()
    assert process.stderr is not None
    assert process.stderr.readline() == f"vasa-jax: {words}; ending\n"
    code, err = ended(process)
    assert (code, err) == (status, "") and not os.listdir(tmp_path)
    assert time.monotonic() - first > 0.5  # it was given time to unwind


def test_a_second_signal_is_not_made_to_wait(tmp_path: Path) -> None:
    process = begun("from vasa_jax.runtime import stopping; stopping.GRACE_S = 600\n" + DEAF)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None and process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert ended(process) == (143, "")


def test_handlers_of_others_are_left_alone() -> None:
    process = begun(
        "import signal, sys\n"
        "before = signal.signal(signal.SIGINT, lambda *unused: print('theirs', flush=True))\n"
        "stopping.GRACE_S = 0; print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "signal.signal(signal.SIGINT, before)\n" + DEAF,
        stdin=subprocess.PIPE,
    )
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "theirs\n"
    print(file=process.stdin, flush=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "vasa-jax: interrupted; ending\n")


def test_what_was_ignored_stays_ignored() -> None:
    process = begun(
        "import time; print('ready', flush=True); time.sleep(1.0); print('done')\n",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    process.send_signal(signal.SIGHUP)
    assert ended(process) == (0, "")


def test_a_forked_worker_that_is_ended_does_not_end_its_parent() -> None:
    process = begun(
        "import multiprocessing, time\n"
        "context = multiprocessing.get_context('fork')\n"
        "worker = context.Process(target=time.sleep, args=(60,))\n"
        "worker.start(); worker.terminate(); worker.join()\n"
        "print('ready' if worker.exitcode == -15 else worker.exitcode)\n"
    )
    assert ended(process) == (0, "")


def test_workers_go_with_a_parent_that_ends_in_a_hurry() -> None:
    process = begun(
        "import multiprocessing, time\n"
        "worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(600,))\n"
        "worker.start(); print('ready', flush=True); print(worker.pid, flush=True)\n" + DEAF
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 143
    for _ in range(500):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{worker}/stat").exists():
            if Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return  # dead; whoever adopted it has not looked yet
        time.sleep(0.02)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker lives on")


def test_the_program_ends_although_threads_compile() -> None:
    """Python's own way out ended in a segmentation fault, or waited for the compilation."""
    script = """
import sys, threading
import jax, jax.numpy as jnp

def deep(x, n):
    for i in range(n):
        x = jnp.sin(x @ x) + i
    return x

sys.argv = ["vasa-jax", "trial"]
from vasa_jax import __main__
from vasa_jax.cli import main as main_module
import types
verb = types.ModuleType("vasa_jax.cli.trial")
verb.add_arguments = lambda parser: None

def run(args):
    lowered = jax.jit(lambda x: deep(x, 150)).lower(jnp.ones((64, 64)))
    for daemon in (True, False):
        threading.Thread(target=lowered.compile, daemon=daemon).start()
    print("ready", flush=True)
    threading.Event().wait()

verb.run = run
sys.modules["vasa_jax.cli.trial"] = verb
main_module.VERBS["trial"] = "a verb of the tests"
__main__.program()
"""
    process = begun(script, env=os.environ | {"JAX_PLATFORMS": "cpu", "VASA_CACHE": "off"})
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "vasa-jax: interrupted; ending\n")
