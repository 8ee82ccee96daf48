"""Motion and unmarked frames of the bundled example as hashes, by the public API of any commit.

python same_frames.py FRAMES.json     from the root of a checkout; figures that must not change
"""

import hashlib
import json
import sys

import numpy as np

import vasa_jax
from vasa_jax.generate.offline import generate_motion, speech_features
from vasa_jax.io.audio import read_audio


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def main() -> None:
    talker = vasa_jax.Talker(vasa_jax.load_release("lite"), vasa_jax.example_portrait())
    engine, how = talker.engine, talker.engine.quick_defaults
    speech = read_audio(vasa_jax.example_speech())
    features = speech_features(engine.motion_config, speech)
    motion = generate_motion(
        engine.motion_config, engine.quick_params, engine.stats, features, sampler=how.sampler,
        steps=how.steps, guidance=how.guidance, grid=how.grid, temperature=how.temperature,
    )  # fmt: skip
    # The renderer alone, on the model's own motion: what finishes a motion is judged by itself.
    frames = np.stack(list(talker.render(motion)))
    whole = list(talker._pictures(motion[:25], "full", None, None))
    table = {
        "model's motion": [sha256(motion), list(motion.shape)],
        "its squares": [sha256(frames), list(frames.shape)],
        "whole pictures of its first second": [sha256(np.stack(whole)), len(whole)],
    }
    with open(sys.argv[1], "w") as file:
        json.dump(table, file, indent=1)
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
