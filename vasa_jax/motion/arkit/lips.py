"""How far expression weights part the lips, and what presses them together."""

from __future__ import annotations

from typing import Any

import numpy as np

from vasa_jax.motion.arkit.emotions import INDEX, weights

# Opening of the inner lips (cm) per unit of weight, measured at three pairs of lip points of an
# average head; ``data/visemes.seal`` solves for what is left over.
LIP_GAP_CM = weights(
    jawOpen=3.27, mouthClose=-3.89, mouthFunnel=1.37, mouthLowerDown=0.338, mouthUpperUp=0.355,
    noseSneer=0.311, mouthShrugUpper=0.526, mouthShrugLower=-0.688, mouthRollLower=-0.375,
    mouthRollUpper=0.182, mouthPress=-0.127, mouthPucker=-0.05, jawForward=0.129,
    cheekSquint=0.018, mouthDimple=-0.036,
)  # fmt: skip

# How far the lips are apart, in weights: jaw, lower and upper lip, less what closes them.
APERTURE = {
    "jawOpen": 1.0,
    **{f"{name}_{side}": 0.25 for name in ("mouthLowerDown", "mouthUpperUp") for side in "LR"},
    "mouthClose": -0.5,
    **{f"mouthPress_{side}": -0.125 for side in "LR"},
    **{f"mouthRoll{lip}": -0.25 for lip in ("Lower", "Upper")},
}


def lip_gap_cm(expression: Any) -> Any:
    """Opening of the inner lips in cm, ``(..., 45) -> (...)``, by the linear table; 0 when shut."""
    return (expression @ LIP_GAP_CM).clip(0)


def pressed(expression: np.ndarray, shut: np.ndarray) -> np.ndarray:
    """A copy (..., 45) whose lips are nearer by the share ``shut`` (...) of their gap; 1 touches.

    ``mouthClose`` does it, so jaw, smile and rounding stay what they are.
    """
    out, close = np.array(expression, np.float32), INDEX["mouthClose"]
    nearer = lip_gap_cm(out) * shut / -LIP_GAP_CM[close]
    out[..., close] = np.clip(out[..., close] + nearer, 0.0, 1.0)
    return out
