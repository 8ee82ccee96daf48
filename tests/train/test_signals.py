"""Signals as a run hears them: in a process of its own, without the rest of the trainer."""

import os
import signal
import subprocess
import sys
import time

import pytest

from vasa_jax.train.signals import Signals, Stopped

# In C for minutes, as a compilation is: Python calls no handler meanwhile.
DEEP = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
BUSY = "[time.sleep(0.01) for _ in range(10**6)]"
ENDS = "while not signals.stop: time.sleep(0.01)"


def listening(*lines, exits=True):
    """A process that says "ready", then goes through ``lines`` with its ears open."""
    code = [
        "import sys, time",
        "from vasa_jax.train.signals import Signals, Stopped",
        f"with Signals(exits={exits}) as signals:",
        *(f"    {line}" for line in lines),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    return process


READY = "print('ready', flush=True)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_deep_in_a_compilation_the_line_comes_at_once_and_the_end_soon(number):
    process = listening("signals.at(20, 20)", READY, DEEP)
    process.send_signal(number)
    line = process.stderr.readline()  # while the main thread still computes
    assert process.poll() is None
    assert line.startswith(f"{number.name}: ending; nothing is to be saved")
    assert "the last checkpoint is step 20" in line
    assert process.wait(timeout=60) == 128 + number


def test_what_is_trained_is_waited_for_until_it_is_asked_again():
    process = listening("signals.at(25, 20)", READY, DEEP)
    for _ in range(3):  # a press, and its echoes by a wrapper
        process.send_signal(signal.SIGINT)
    line = process.stderr.readline()
    assert "ending after the step under way and saving" in line and "step 20" in line
    process.send_signal(signal.SIGTERM)  # schedulers repeat it
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    rest = process.stderr.read().splitlines()
    assert len(rest) == 1 and "without saving; the last checkpoint is step 20" in rest[0]


def test_a_loop_sees_the_signal_and_returns():
    process = listening("signals.at(3, None)", READY, ENDS, "print(signals.stop)")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert out == "SIGTERM\n" and process.returncode == 0
    assert len(err.splitlines()) == 1 and "there is no checkpoint yet" in err


def test_what_may_be_left_is_left_at_once():
    process = listening(
        "signals.at(3, 2)",
        "try:",
        "    with signals.leaving('an evaluation'):",
        f"        {READY}",
        f"        {BUSY}",
        "except Stopped:",
        "    print('left')",
    )
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out == "left\n" and process.returncode == 0
    assert "ending after an evaluation and saving" in err


def test_outside_of_a_command_a_second_press_is_pythons_own():
    process = listening("signals.at(3, 2)", READY, BUSY, exits=False)
    process.send_signal(signal.SIGINT)
    process.stderr.readline()
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]


def test_afterwards_everything_is_as_before():
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in names]
    with Signals() as signals:
        said = []
        signals.say = said.append
        assert signal.getsignal(signal.SIGINT) not in before
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped), signals.leaving("a batch"):
            pass  # too late to begin
    assert [signal.getsignal(number) for number in names] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert len(said) == 1  # also when the end follows at once
    assert signals.stop == "SIGTERM"
