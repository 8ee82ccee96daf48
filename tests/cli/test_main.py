from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import sys
import types
import warnings

import pytest

from vasa_jax.cli import main as main_module
from vasa_jax.cli.main import main
from vasa_jax.core.errors import InputWarning, UserError


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A verb "trial" whose behaviour each test sets."""
    module = types.ModuleType("vasa_jax.cli.trial")
    module.add_arguments = lambda parser: parser.add_argument("--n", type=int, default=0)
    monkeypatch.setitem(sys.modules, "vasa_jax.cli.trial", module)
    monkeypatch.setitem(main_module.VERBS, "trial", "a verb of the tests")
    return module


def raising(error: BaseException):
    def run(args: argparse.Namespace) -> None:
        raise error

    return run


def test_a_verb_gets_its_arguments_and_gives_the_status(verb: types.ModuleType) -> None:
    verb.run = lambda args: args.n
    assert main(["trial", "--n", "7"]) == 7
    verb.run = lambda args: None
    assert main(["trial"]) == 0


@pytest.mark.parametrize("error, status, text", [
    (UserError("no face;\n  give another"), 2, "vasa-jax: error: no face; give another"),
    (OSError(errno.ENOSPC, "No space left"), 2, "the disk is full"),
    (ModuleNotFoundError("No module", name="numba"), 2, "pip install 'vasa-jax[train]'"),
    (KeyboardInterrupt(), 130, "interrupted"),
])  # fmt: skip
def test_errors_of_the_user_are_one_line(
    verb: types.ModuleType, capsys: pytest.CaptureFixture, error: BaseException, status: int,
    text: str,
) -> None:  # fmt: skip
    verb.run = raising(error)
    assert main(["trial"]) == status
    captured = capsys.readouterr()
    assert text in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_warnings_of_the_input_are_a_line_each_and_a_list(
    verb: types.ModuleType, capsys: pytest.CaptureFixture
) -> None:
    def run(args: argparse.Namespace) -> None:
        for _ in range(2):
            warnings.warn("44 bytes\n  were left", InputWarning, stacklevel=1)
        with pytest.warns(DeprecationWarning):  # others stay what they are
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        warnings.warn("dark picture", InputWarning, stacklevel=1)
        print(json.dumps(args.warnings))

    verb.run = run
    assert main(["trial"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "vasa-jax: warning: 44 bytes were left", "vasa-jax: warning: dark picture",
    ]  # fmt: skip
    assert json.loads(captured.out) == ["44 bytes were left", "dark picture"]


def test_errors_of_ours_keep_their_traceback(verb: types.ModuleType) -> None:
    for error in (ZeroDivisionError(), ModuleNotFoundError("x", name="vasa_jax.nothing")):
        verb.run = raising(error)
        with pytest.raises(type(error)):
            main(["trial"])


def test_termination_unwinds_so_that_files_are_cleaned_up(verb: types.ModuleType) -> None:
    cleaned = []

    def run(args: argparse.Namespace) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            cleaned.append(True)

    verb.run = run
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        main(["trial"])
    assert caught.value.code == 143 and cleaned and signal.getsignal(signal.SIGTERM) is before


def test_help_and_version_name_every_verb(capsys: pytest.CaptureFixture) -> None:
    for argv, code in ((["--help"], 0), (["--version"], 0), (["nonsense"], 2)):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == code
    out = capsys.readouterr().out
    assert all(name in out for name in main_module.VERBS) and "vasa-jax " in out
    assert main([]) == 2


def test_every_verb_answers_help(capsys: pytest.CaptureFixture) -> None:
    for name in main_module.VERBS:
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0
        assert f"usage: vasa-jax {name}" in capsys.readouterr().out


def test_check_reports_each_part_and_names_a_missing_release(
    capsys: pytest.CaptureFixture, tmp_path
) -> None:
    assert main(["check", "--json", "--release", str(tmp_path / "none")]) == 1
    report = json.loads(capsys.readouterr().out)
    states = {row["part"]: row["state"] for row in report["findings"]}
    assert states["jax"] == states["video codecs"] == states["devices"] == "ok"
    assert [row for row in report["findings"] if "release" in row["part"]][0]["state"] == "broken"
    assert not report["ok"]
