from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import subprocess
import sys
import types
import warnings

import pytest

import vasa_jax
from vasa_jax.cli import check, optional
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
    parts = ("jax", "video codecs", "devices", "face networks", "example")
    assert {name: states[name] for name in parts} == dict.fromkeys(parts, "ok")
    assert [row for row in report["findings"] if "release" in row["part"]][0]["state"] == "broken"
    assert not report["ok"]


def test_check_says_where_things_are_and_what_every_optional_part_gives(
    capsys: pytest.CaptureFixture, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VASA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VASA_IDENTITY", str(tmp_path / "me"))
    monkeypatch.setenv("VASA_FACES", str(tmp_path / "gone"))
    monkeypatch.setattr(optional.util, "find_spec", lambda name: None if name == "aiortc" else True)
    found = {f.part: f for f in check.findings(release="none")}
    assert str(tmp_path / "cache") in found["cache"].detail
    assert str(tmp_path / "me") in found["identity"].detail and not list(tmp_path.iterdir())
    package = os.path.dirname(vasa_jax.__file__)
    assert found["package"].detail == package
    assert package in found["releases"].detail and "lite" in found["releases"].detail
    assert str(vasa_jax.example_portrait()) in found["example"].detail
    for name, extra in optional.EXTRAS.items():
        row = found[f"[{name}]"]
        assert row.detail.startswith(extra.gives)
        assert row.state == ("absent" if name == "webrtc" else "ok")
    assert "missing aiortc: pip install 'vasa-jax[webrtc]'" in found["[webrtc]"].detail
    assert found["$VASA_FACES"].state == "absent" and "is not there" in found["$VASA_FACES"].detail


def test_names_of_files_are_taken_as_typed_and_told_as_text(
    verb: types.ModuleType, capsys: pytest.CaptureFixture, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "~x").touch()

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", metavar="FILE")
        parser.add_argument("-o", metavar="OUT.mp4")
        parser.add_argument("--release", default="lite", metavar="NAME|DIR|URL")
        parser.add_argument("--consent", metavar="TEXT")

    verb.add_arguments = add_arguments
    verb.run = lambda args: print(args.files, args.o, args.release, args.consent)
    home = str(tmp_path / "home")
    command = ["trial", "~x", "~/y", "a", "-o", "~/z.mp4", "--consent", "~/me"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"['~x', '{home}/y', 'a'] {home}/z.mp4 lite ~/me\n"


def test_a_name_that_is_no_text_can_be_printed(tmp_path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.jpg"
    ended = subprocess.run(
        [sys.executable, "-m", "vasa_jax", "verify", name], capture_output=True,
        cwd=os.path.dirname(os.path.dirname(vasa_jax.__file__)),
    )  # fmt: skip
    assert ended.returncode == 2 and b"no such" in ended.stdout + ended.stderr
    assert b"Traceback" not in ended.stderr
