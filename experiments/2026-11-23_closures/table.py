"""table.py NAME.json ...: tables of measure.py beside one another, in Markdown."""

import json
import sys
from pathlib import Path

COLUMNS = (
    ("closures", "{:.1%}"), ("closures_chance", "{:.1%}"), ("gap", "{:.3f}"),
    ("correlation", "{:.3f}"), ("lag_frames", "{:+.2f}"), ("rest_ratio", "{:.2f}"),
)  # fmt: skip
tables = {Path(p).stem: json.loads(Path(p).read_text())["table"] for p in sys.argv[1:]}
print("| emotion asked for | weights | closures | by chance | gap at them | sync | lag | rest |")
print("|---|---|---|---|---|---|---|---|")
for emotion in next(iter(tables.values())):
    for name, table in tables.items():
        cells = (form.format(table[emotion][key]) for key, form in COLUMNS)
        print("| " + " | ".join((emotion, name, *cells)) + " |")
