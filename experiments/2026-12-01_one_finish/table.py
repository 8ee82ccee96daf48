"""Rows of ``measure.py``'s files side by side, as Markdown: mean (least to most) of all runs.

table.py BEFORE.json AFTER.json ... > table.md
"""

import json
import sys
from pathlib import Path

import numpy as np

names = [Path(name).stem for name in sys.argv[1:]]
files = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
print("|  |", " | ".join(names), "|")
print("|---|" + "---|" * len(files))
for key in dict.fromkeys(key for row in files[0] for key in row):
    if key in ("recording", "seed", "seconds", "frames of pauses"):
        continue
    values = [np.array([row[key] for row in rows if key in row]) for rows in files]
    cells = [f"{v.mean():.3f} ({v.min():.3f} to {v.max():.3f})" for v in values]
    print(f"| {key} |", " | ".join(cells), "|")
