"""The table of models/README.md, from the training records beside the weights."""

from __future__ import annotations

import json
import statistics
from pathlib import Path


def table(models: Path) -> str:
    """Markdown: a row a model, mean and spread over seeds, the shipped seed's own accuracy."""
    columns = (
        "model",
        "attention",
        "parameters",
        "epochs",
        "accuracy, mean ± deviation over seeds",
        "each seed (the first ships)",
    )
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    folders = [record.parent for record in models.rglob("training.json")]
    for folder in sorted(folders):
        record = json.loads((folder / "training.json").read_text())
        config = json.loads((folder / "config.json").read_text())
        accuracies = list(record["accuracy_percent"].values())
        kinds = []
        for head in config["undertone"]["layers"][0]["heads"]:
            kind = head["kind"] + (f" p={head['p']}" if head["kind"] == "power" else "")
            kind += " (simhash)" if head.get("variant") == "simhash" else ""
            if kind not in kinds:
                kinds.append(kind)
        summary = f"{statistics.mean(accuracies):.2f} (one seed)"
        if len(accuracies) > 1:
            summary = f"{statistics.mean(accuracies):.2f} ± {statistics.stdev(accuracies):.2f}"
        each = ", ".join(f"{a:.2f}" for a in accuracies)
        rows.append(
            f"| `{folder.relative_to(models).as_posix()}` | {' + '.join(kinds)} | {record['parameters']:,} "
            f"| {record['epochs']} | {summary} | {each} |"
        )
    return "\n".join(rows)
