"""The last steps of live pictures: the same as one after the other, whatever comes first."""

import asyncio
import types

import numpy as np
import pytest

from vasa_jax.face.find import align
from vasa_jax.generate.live.pictures import Finisher

SIZE = 32


@pytest.fixture
def talker():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (80, 96, 3), np.uint8)
    landmarks = rng.uniform((30, 20), (60, 60), (478, 2))
    return types.SimpleNamespace(
        image=image, crop=align.Crop(45.0, 40.0, 50.0),
        size=SIZE,
        face=types.SimpleNamespace(landmarks=landmarks),
    )  # fmt: skip


def squares(count):
    rng = np.random.default_rng(1)
    return list(rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8))


async def finished(finisher, drawn, order):
    """Pictures of one hop whose squares are drawn in ``order``."""
    loop = asyncio.get_running_loop()
    futures = [None if square is None else loop.create_future() for square in drawn]
    tasks = finisher.begin(futures)
    for index in order:
        await asyncio.sleep(0.01)
        futures[index].set_result((drawn[index], float(index)))
    return [task and await task for task in tasks]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_pictures_of_a_hop_are_those_of_one_after_the_other(talker, order):
    drawn = squares(6)
    paster = align.Paster(talker.image, talker.crop, SIZE, landmarks=talker.face.landmarks)
    expected = [paster(square) for square in drawn]
    finisher = Finisher(talker, "full", None)

    async def two_hops():
        first = await finished(finisher, drawn[:3], order)
        return first + await finished(finisher, drawn[3:], order)

    made = asyncio.run(two_hops())
    assert [ms for _, ms in made] == [0.0, 1.0, 2.0] * 2
    for (picture, _), wanted in zip(made, expected, strict=True):
        np.testing.assert_array_equal(picture, wanted)
    assert any((a != b).any() for a, b in zip(expected[0], expected[1], strict=True))


def test_a_picture_that_was_left_out_is_none(talker):
    drawn = [*squares(1), None]
    made = asyncio.run(finished(Finisher(talker, "crop", None), drawn, (0,)))
    np.testing.assert_array_equal(made[0][0], drawn[0])
    assert made[1] is None


def test_an_error_while_drawing_is_told_and_holds_up_nobody(talker):
    async def run():
        loop = asyncio.get_running_loop()
        futures = [loop.create_future(), loop.create_future()]
        tasks = Finisher(talker, "full", None).begin(futures)
        futures[0].set_exception(ValueError("no picture"))
        futures[1].set_result((squares(1)[0], 0.0))
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5.0)

    first, second = asyncio.run(run())
    assert isinstance(first, ValueError)
    assert second[0].shape == talker.image.shape
