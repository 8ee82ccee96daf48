"""The command on files that were really written, changed, re-muxed, cut, and made by others."""

from __future__ import annotations

import datetime
import json

import numpy as np
import pytest

from tests.provenance.natural import natural_picture
from vasa_jax.checkpoint.release import load_release
from vasa_jax.cli.main import main
from vasa_jax.io.image import write_image
from vasa_jax.io.video import VideoWriter, read_video
from vasa_jax.provenance import manifest
from vasa_jax.provenance.certificate import local_identity
from vasa_jax.provenance.payload import Payload
from vasa_jax.provenance.watermark import Marker

c2pa = pytest.importorskip("c2pa")
SIDE, FRAMES = 256, 50
# Of one time: the payload decides by how much a weak mark is read.
WHEN = datetime.datetime(2026, 11, 21, 16, 20, tzinfo=datetime.UTC)
SAID = Payload.of("c0ffee" + 58 * "0", WHEN)


def _write(path, frames, **options):
    with VideoWriter(path, size=(SIDE, SIDE), **options) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A signed and marked video, the same unmarked, and a still of each."""
    folder = tmp_path_factory.mktemp("files")
    plain = [np.roll(natural_picture(SIDE, SIDE, 0), i // 4, axis=1) for i in range(FRAMES)]
    marker = Marker(SAID, SIDE, SIDE)
    marked = [marker(frame) for frame in plain]
    _write(folder / "plain.mp4", plain)
    signed = _write(folder / "signed.mp4", marked)
    claim = manifest.Claim(
        release="tiny", release_sha256="c0ffee" + 58 * "0", version="0", settings={},
        consent="drawn by a test",
    )  # fmt: skip
    manifest.sign(signed, claim, local_identity())
    write_image(folder / "plain.png", plain[0])
    write_image(folder / "marked.jpg", marked[0])
    return folder


def _verdict(capsys, *paths):
    code = main(["verify", "--json", *map(str, paths)])
    report = json.loads(capsys.readouterr().out)
    assert report["exit"] == code
    return code, report["files"]


def test_ours_is_known_and_others_are_not(files, capsys):
    names = ("signed.mp4", "plain.mp4", "marked.jpg", "plain.png")
    code, reports = _verdict(capsys, *(files / name for name in names))
    assert code == 1 and [r["exit"] for r in reports] == [0, 1, 0, 1]
    ours = reports[0]
    assert ours["mark"]["found"] and ours["mark"]["false_alarm"] < 1e-6
    assert ours["mark"]["payload"]["release"] == "c0ffe"
    assert ours["manifest"]["state"] == "valid" and ours["manifest"]["synthetic"]
    assert [r["manifest"]["state"] for r in reports] == ["valid", "absent", "absent", "absent"]


def test_the_bundled_release_is_called_by_its_name(tmp_path, capsys):
    release = load_release("lite")
    marked = Marker(Payload.of(release.sha256), SIDE, SIDE)(natural_picture(SIDE, SIDE, 1))
    write_image(tmp_path / "still.png", marked)
    code, (report,) = _verdict(capsys, tmp_path / "still.png")
    assert code == 0 and report["mark"]["payload"]["release_name"] == "lite"
    assert main(["verify", str(tmp_path / "still.png")]) == 0
    assert f"lite ({release.sha256[:5]})" in capsys.readouterr().out


def test_it_says_so_in_words(files, capsys):
    assert main(["verify", str(files / "signed.mp4")]) == 0
    text = capsys.readouterr().out
    assert "this is synthetic" in text and "one in more than a billion" in text
    assert "consent: drawn by a test" in text and "c0ffe..." in text and "intact" in text
    assert main(["verify", str(files / "plain.mp4")]) == 1
    assert "does not show that it is genuine" in capsys.readouterr().out


def test_a_tampered_file_is_caught(files, tmp_path, capsys):
    data = bytearray((files / "signed.mp4").read_bytes())
    data[-4] ^= 1
    (tmp_path / "t.mp4").write_bytes(data)
    code, (report,) = _verdict(capsys, tmp_path / "t.mp4")
    assert code == 3 and report["manifest"]["state"] == "tampered"
    assert report["manifest"]["problems"] and report["mark"]["found"]


def test_without_its_manifest_the_mark_remains(files, tmp_path, capsys):
    """Re-muxed: the same packets in a new file."""
    import av

    with av.open(str(files / "signed.mp4")) as old, av.open(str(tmp_path / "r.mp4"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    code, (report,) = _verdict(capsys, tmp_path / "r.mp4")
    assert code == 0 and report["manifest"]["state"] == "absent"
    assert report["mark"]["payload"]["release"] == "c0ffe"


def test_a_cut_of_one_second_is_known(files, tmp_path, capsys):
    frames = list(read_video(files / "signed.mp4"))[20:45]
    code, (report,) = _verdict(capsys, _write(tmp_path / "cut.mp4", frames, crf=23))
    assert code == 0 and report["manifest"]["state"] == "absent" and report["mark"]["frames"] == 25
    assert report["mark"]["payload"]["release"] == "c0ffe"


def test_another_generators_manifest_is_read_and_not_taken_for_ours(files, tmp_path, capsys):
    definition = {
        "claim_generator_info": [{"name": "Another Generator", "version": "2"}],
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {
                    "actions": [
                        {"action": "c2pa.created", "digitalSourceType": manifest.SOURCE_TYPE}
                    ]
                },
            }
        ],
    }
    identity = local_identity()
    info = c2pa.C2paSignerInfo(
        identity.algorithm, identity.chain.encode(), identity.key.encode(), None
    )
    target = tmp_path / "other.mp4"
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(definition) as builder:
        with open(files / "plain.mp4", "rb") as source, open(target, "w+b") as out:
            builder.sign(signer, "video/mp4", source, out)
    code, (report,) = _verdict(capsys, target)
    assert code == 1 and not report["mark"]["found"]
    found = report["manifest"]
    assert (found["state"], found["generator"]) == ("valid", "Another Generator")
    assert found["synthetic"] and not found["ours"]


def test_bad_files_are_named_and_the_others_looked_at(files, tmp_path, capsys):
    (tmp_path / "text.mp4").write_text("no video at all")
    (tmp_path / "empty.mp4").write_bytes(b"")
    write_image(tmp_path / "small.png", np.zeros((18, 18, 3), np.uint8))
    paths = [tmp_path / n for n in ("text.mp4", "empty.mp4", "none.mp4", "small.png")]
    code, reports = _verdict(capsys, *paths, files / "marked.jpg")
    assert code == 2 and [r["exit"] for r in reports] == [2, 2, 2, 2, 0]
    assert all(path.name in r["file"] for path, r in zip(paths, reports, strict=False))
    assert "too small" in reports[3]["error"]
