"""Animated pictures: as many frames as were given, for as long as they are shown."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from vasa_jax.core.errors import UserError
from vasa_jax.io.animation import write_animation


def frames(count=5):
    """A bar that moves to the right."""
    pictures = np.zeros((count, 32, 48, 3), np.uint8)
    for i in range(count):
        pictures[i, :, 8 * i : 8 * i + 8] = (250, 200, 40)
    return list(pictures)


@pytest.mark.parametrize("suffix", ["webp", "gif"])
def test_every_frame_is_there_at_its_time(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    write_animation(path, frames(), fps=12.5)
    with Image.open(path) as animation:
        assert animation.n_frames == 5 and animation.size == (48, 32)
        assert animation.info["loop"] == 0
        durations, shown = [], []
        for picture in ImageSequence.Iterator(animation):
            shown.append(np.asarray(picture.convert("RGB")).astype(int))
            durations.append(picture.info["duration"])
    assert durations == [80] * 5
    for got, wanted in zip(shown, frames(), strict=True):
        assert np.abs(got - wanted).mean() < 12


def test_what_cannot_be_written_is_told(tmp_path):
    with pytest.raises(UserError, match="name it .webp or .gif"):
        write_animation(tmp_path / "a.png", frames(), fps=25)
    with pytest.raises(UserError, match="no frame"):
        write_animation(tmp_path / "a.gif", [], fps=25)
    assert not list(tmp_path.iterdir())
