"""What of a picture is a person: MediaPipe's selfie segmentation (``assets/README.md``).

The net was made for people near a camera, head and shoulders, which crops of heads are. It sees
256 x 256 pixels, RGB in [0, 1], and says the share of each that is a person.
"""

from __future__ import annotations

import numpy as np

from vasa_jax.face.find.detection import Net, lit

SIDE = 256


class Segmenter:
    """Mattes of square pictures. Not safe to share between threads: the net keeps its buffers."""

    def __init__(self) -> None:
        self._net = Net("selfie_segmentation")

    def __call__(self, square_u8: np.ndarray) -> np.ndarray:
        """(n, n, 3) uint8 RGB -> (256, 256) float32, 1 where a person is."""
        from PIL import Image

        if square_u8.shape[:2] != (SIDE, SIDE):
            picture = Image.fromarray(square_u8)
            square_u8 = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        seen = lit(square_u8).astype(np.float32) / np.float32(255.0)
        return self._net(seen)[SIDE * SIDE][..., 0]
