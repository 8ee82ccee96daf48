import pytest

from vasa_jax.bench.ceilings import RTX_4090, Ceilings, Part, frames_per_second, measured_ceilings

HERE = Ceilings(name="toy", flops=1e9, bytes=1e8, source="made up")


def part(flops, moved, **options):
    return Part(name="p", dtype="float32", hand_flops=flops, hand_bytes=moved,
                **({"per_frame": 1.0} | options))  # fmt: skip


def test_the_floor_is_the_slower_of_computing_and_moving():
    assert part(2e9, 1e8).floor_s(HERE) == 2.0 and part(2e9, 1e8).bound(HERE) == "computing"
    assert part(1e9, 3e8).floor_s(HERE) == 3.0 and part(1e9, 3e8).bound(HERE) == "memory"
    assert part(1e9, 1e8, measured_s=4.0).achieved(HERE) == 0.25
    assert part(1e9, 1e8).achieved(HERE) is None


def test_frames_add_their_parts_as_often_as_they_run():
    parts = [part(1e9, 0.0), part(1e9, 0.0, per_frame=0.5), part(9e9, 0.0, per_frame=0.0)]
    assert frames_per_second(parts, {"float32": HERE}) == pytest.approx(1 / 1.5)


def test_counts_are_compared_only_where_the_compiler_gave_some():
    assert part(1.1, 1.0, compiler_flops=1.0).flops_ratio == pytest.approx(1.1)
    assert part(1.0, 1.0).flops_ratio is None and part(1.0, 1.0).bytes_ratio is None


def test_half_a_teraflop_in_bfloat16_is_320_frames_a_second_on_a_4090():
    """By hand: 511 GFLOP at 165 TFLOP/s are 3.10 ms."""
    whole = Part(name="r", per_frame=1.0, dtype="bfloat16", hand_flops=511e9, hand_bytes=1.9e9)
    assert frames_per_second([whole], RTX_4090) == pytest.approx(323, rel=0.01)


def test_ceilings_of_this_machine_are_plausible(monkeypatch):
    from vasa_jax.bench import ceilings as floor

    monkeypatch.setattr(floor, "MATRIX", 256)
    monkeypatch.setattr(floor, "COPY_MB", 4)
    here = measured_ceilings()
    assert 1e8 < here.flops < 1e16 and 1e7 < here.bytes < 1e14
