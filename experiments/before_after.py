"""Stage 1 before and after a change, as a table: FOLDER/results.json.

python experiments/before_after.py FOLDER NAME, of what ``vasa-jax evaluate face --json`` wrote to
out/NAME_before.json and out/NAME_after.json.
"""

import json
import sys
from pathlib import Path

CASES = ("self", "pose", "both", "agree")
COLUMNS = ("warp", "model")
MEASURES = ("psnr", "psnr_head", "ssim", "lpips", "landmarks")


def means(path: Path) -> dict:
    """Case, column, measure: the mean over all pairs."""
    summary = json.loads(path.read_text())["summary"]
    return {
        case: {
            column: {m: round(columns[column][m]["mean"], 4) for m in MEASURES}
            for column in COLUMNS
            if column in columns
        }
        for case, columns in summary.items()
        if case in CASES
    }


folder, name = sys.argv[1:]
table = {side: means(Path(f"out/{name}_{side}.json")) for side in ("before", "after")}
Path(folder, "results.json").write_text(json.dumps(table, indent=1) + "\n")
