"""A drawn face for tests: no photograph needs to be in the repository."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


def drawn_face(side: int = 480, *, background: int = 170) -> np.ndarray:
    """uint8 (side, side, 3): a head seen from the front, its face about half as high."""
    n = 480
    image = Image.new("RGB", (n, n), (background, background, background + 20))
    draw = ImageDraw.Draw(image)
    draw.ellipse((120, 60, 360, 400), fill=(60, 40, 30))  # hair
    draw.rectangle((200, 340, 280, 440), fill=(196, 150, 122))  # neck
    draw.ellipse((90, 410, 390, 600), fill=(50, 70, 110))  # shoulders
    draw.ellipse((142, 100, 338, 392), fill=(224, 180, 150))  # face
    draw.pieslice((138, 70, 342, 260), 180, 360, fill=(60, 40, 30))  # fringe
    draw.ellipse((142, 130, 338, 392), outline=None, fill=(224, 180, 150))
    for x in (195, 285):
        draw.ellipse((x - 28, 205, x + 28, 240), fill=(196, 150, 122))  # socket
        draw.ellipse((x - 22, 212, x + 22, 236), fill=(245, 245, 245))
        draw.ellipse((x - 11, 212, x + 11, 235), fill=(70, 50, 30))
        draw.ellipse((x - 5, 219, x + 5, 229), fill=(10, 10, 10))
        draw.arc((x - 25, 208, x + 25, 244), 190, 350, fill=(40, 25, 20), width=4)
        draw.arc((x - 34, 180, x + 34, 230), 205, 335, fill=(60, 40, 30), width=8)  # brow
    draw.polygon([(240, 225), (222, 288), (258, 288)], fill=(212, 166, 136))  # nose
    draw.ellipse((218, 276, 262, 298), fill=(208, 160, 130))
    for x in (228, 252):
        draw.ellipse((x - 6, 286, x + 6, 294), fill=(120, 70, 60))
    draw.ellipse((200, 320, 280, 350), fill=(180, 90, 90))  # lips
    draw.line((203, 334, 277, 334), fill=(110, 45, 50), width=3)
    image = image.filter(ImageFilter.GaussianBlur(2.5))
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))
