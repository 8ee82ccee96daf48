"""What a face shows of an emotion: expression weights, and how much of them a motion lacks.

The signs are those of EMFACS (Friesen and Ekman 1983), as strong as landmarks on pictures need to
tell them apart: widened eyes and lowered corners of the mouth hardly move them.
"""

from __future__ import annotations

import numpy as np

from vasa_jax.core.arkit import EXPRESSION, EXPRESSION_NAMES
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import EMOTIONS, Controls

INDEX = {name: i for i, name in enumerate(EXPRESSION_NAMES)}


def weights(**named: float) -> np.ndarray:
    """Expression weights (45,) from names; a name without ``_L``/``_R`` sets both sides."""
    out = np.zeros(len(EXPRESSION_NAMES), np.float32)
    for name, value in named.items():
        columns = [INDEX[n] for n in (name, name + "_L", name + "_R") if n in INDEX]
        if not columns:
            raise UserError(f"no expression is called '{name}'; see core.arkit.EXPRESSION_NAMES")
        out[columns] = value
    return out


# Offsets at strength 1. Mouths stay mostly shut at rest: speech adds its own opening.
EMOTION_OFFSETS: dict[str, np.ndarray] = {
    "neutral": weights(),
    "happy": weights(mouthSmile=.62, cheekSquint=.48, eyeSquint=.22, mouthUpperUp=.10,
                     mouthLowerDown=.07, mouthDimple=.15, browOuterUp=.06),
    "sad": weights(mouthFrown=1.0, browInnerUp=.85, browDown=.30, eyeSquint=.18, eyeBlink=.20,
                   jawForward=.30),
    "angry": weights(browDown=.95, noseSneer=.32, mouthFrown=.60, eyeSquint=.30, mouthPress=.22,
                     jawForward=.20, eyeWide=.70),
    "surprised": weights(browInnerUp=.75, browOuterUp=.80, eyeWide=.65, jawOpen=.10,
                         mouthFunnel=.06),
    "fearful": weights(browInnerUp=.85, browDown=.25, eyeWide=1.0, mouthStretch=1.0),
    "disgusted": weights(noseSneer=.70, browDown=.50, eyeSquint=.35, mouthUpperUp=.20,
                         cheekSquint=.25, mouthFrown=.28, mouthShrugLower=.15),
    "contempt": weights(mouthSmile_R=.50, mouthDimple_R=.50, mouthRight=.50, noseSneer_R=.20,
                        cheekSquint_R=.22, eyeSquint_R=.20),
}  # fmt: skip
_OFFSETS_8E = np.stack([EMOTION_OFFSETS[name] for name in EMOTIONS])
_ROUNDED = [INDEX[name] for name in ("mouthPucker", "mouthFunnel")]
_PULLED_IN = [INDEX[f"{name}_{side}"] for name in ("mouthSmile", "mouthStretch") for side in "LR"]


def rounding(mouth_TE: np.ndarray) -> np.ndarray:
    """How far the lips of expressions (T, 45) are rounded, (T,)."""
    return mouth_TE[:, _ROUNDED].sum(-1)


def feeling(emotion_T8: np.ndarray, mouth_TE: np.ndarray) -> np.ndarray:
    """Expression offsets (T, 45) of emotions; rounded lips pull smiling and stretched corners in.

    ``mouth_TE`` are the weights of the mouth that speaks meanwhile.
    """
    offsets = emotion_T8 @ _OFFSETS_8E
    offsets[:, _PULLED_IN] *= np.clip(1.0 - 0.6 * rounding(mouth_TE), 0.3, 1.0)[:, None]
    return offsets


def asked_feeling(controls: Controls, motion_TM: np.ndarray) -> np.ndarray:
    """What the emotions that are asked for want of each expression, (T, 45); 0 wants nothing."""
    strength = np.asarray(controls.emotion) * np.asarray(controls.emotion_on)[:, None]
    return np.clip(feeling(strength, motion_TM[:, EXPRESSION]), 0.0, 1.0)
