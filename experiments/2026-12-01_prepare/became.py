"""What became of each video of a prepared folder, as a table: python became.py CLIPS"""

import sys
from collections import Counter
from pathlib import Path

from vasa_jax.data.records import Records, shards
from vasa_jax.prepare.journal import read
from vasa_jax.prepare.run import PER_CLIP


def main(folder: Path) -> None:
    stages = {
        stage: {row["key"]: row for path in folder.glob(f"journal/{stage}*.jsonl")
                for row in read(path)}
        for stage in ("index", "scan", "tracks", *PER_CLIP)
    }  # fmt: skip
    made = Records(shards(folder))
    print("| video | clips | seconds | not used |\n|---|---|---|---|")
    for key, row in sorted(stages["index"].items(), key=lambda item: item[0].lower()):
        path = key.split("|")[0]
        name = Path(path).name
        if "result" not in row:
            print(f"| {name} | | | {row.get('refused', row.get('error')).replace(path, name)} |")
            continue
        source = row["result"]["source"]
        mine = [i for i, clip in enumerate(made.ids.tolist()) if clip.startswith(source)]
        refused = Counter(
            r["refused"] for stage in ("scan", "tracks", *PER_CLIP)
            for k, r in stages[stage].items() if k.startswith(source) and "refused" in r
        )  # fmt: skip
        lags = [stages["sync"][made.ids[i]]["result"]["lag"] for i in mine]
        moved = f"sound moved by {lags[0]} frames" if any(lags) else ""
        why = ", ".join(f"{n} x {text}" if n > 1 else text for text, n in refused.items())
        seconds = sum(int(made.frames[i]) for i in mine) / 25
        print(f"| {name} | {len(mine) or ''} | {f'{seconds:.1f}' if mine else ''} | "
              f"{'; '.join(x for x in (why, moved) if x)} |")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
