"""What a study found: a table beside the published one, as Markdown, JSON and a picture."""

import datetime
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from swin_jax.studies.runs import Study
from swin_jax.studies.table import MEASURES, TITLES
from swin_jax.tasks import pictures
from swin_jax.tasks.pictures.studies import Curve, Outcome, study_picture
from swin_jax.training.run_directory import write_atomically


def collect(study: Study, failed: Mapping[str, str]) -> dict[str, Any]:
    """All figures of a study; every value is JSON's. Measures are in percent.

    Args:
      study: with at least one finished run.
      failed: "row, seed n" -> why.

    Raises:
      ValueError: no run is finished.
    """
    rows = {}
    for name, row in study.table.rows.items():
        seeds = study.seeds(name)
        finals = [study.curve(name, seed)[-1] for seed in seeds]
        rows[name] = {
            "title": row.title,
            "note": row.note,
            "seeds": list(seeds),
            "published": dict(row.published),
            "found": {
                measure: _spread([line[measure] for line in finals]) for measure in MEASURES[study.task]
            },
        }
    if not any(row["seeds"] for row in rows.values()):
        raise ValueError(
            f"{study.directory} has no finished run of {study.task}; nothing to put into a table"
        )
    return {
        "table": study.file.stem,
        "title": study.table.title,
        "base_row": study.table.base_row,
        "scale": study.scale,
        "task": study.task,
        "overrides": list(study.overrides),
        "rows": rows,
        "failed": dict(failed),
        "machine": f"{os.cpu_count()} cores, {jax.devices()[0].device_kind}, {platform.machine()}",
        "date": str(datetime.date.today()),
    }


def write(study: Study, found: Mapping[str, Any]) -> list[str]:
    """Writes `table_<task>.md`, `.json` and `.png` into the study; returns the paths."""
    stem = study.directory / f"table_{study.task}"
    parts = {
        "md": markdown(found).encode(),
        "json": json.dumps(found, indent=1).encode() + b"\n",
        "png": pictures.png(drawn(study, found)),
    }
    for ending, data in parts.items():
        write_atomically(stem.with_suffix(f".{ending}"), data)
    return [str(stem.with_suffix(f".{ending}")) for ending in parts]


def markdown(found: Mapping[str, Any]) -> str:
    """For each measure: ours with the spread over seeds, its difference to the base row, and the published ones."""
    measures, rows = MEASURES[found["task"]], found["rows"]
    base = rows[found["base_row"]]
    head = ["row", "seeds"]
    for measure in measures:
        head += [TITLES[measure], "to base", "published", "to base"]
    lines = [
        f"# {found['title']}",
        "",
        f"Scale {found['scale']}, {found['task']}; mean ± standard deviation over seeds, in percent; differences to "
        f"{base['title']!r}. {found['machine']}, {found['date']}."
        + (f" All rows with {', '.join(found['overrides'])}." if found["overrides"] else ""),
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    for row in rows.values():
        cells = [row["title"] + (" *" if row["note"] else ""), str(len(row["seeds"])) if row["seeds"] else ""]
        for measure in measures:
            ours, theirs = row["found"][measure], row["published"].get(measure)
            cells += [
                _ours(ours),
                _difference(ours and ours["mean"], (base["found"][measure] or {}).get("mean")),
            ]
            cells += [
                "" if theirs is None else f"{theirs:.1f}",
                _difference(theirs, base["published"].get(measure)),
            ]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"\\* {row['title']}: {row['note']}" for row in rows.values() if row["note"]]
    failures = [f"Not finished: {run}: {why}" for run, why in found["failed"].items()]
    return "\n".join([*lines, *([""] if notes or failures else []), *notes, *failures]) + "\n"


def drawn(study: Study, found: Mapping[str, Any]) -> np.ndarray:
    """How far every row is from the base row beside the published difference, and the learning curves."""
    measure = MEASURES[study.task][0]
    base = found["rows"][found["base_row"]]
    base_mean = base["found"][measure]["mean"] if base["found"][measure] else 0.0
    outcomes, curves = [], []
    for name, row in found["rows"].items():
        if (ours := row["found"][measure]) is None:
            continue
        theirs, reference = row["published"].get(measure), base["published"].get(measure)
        published = None if theirs is None or reference is None else theirs - reference
        outcomes.append(
            Outcome(row["title"], tuple(value - base_mean for value in ours["values"]), published)
        )
        courses = [study.curve(name, seed) for seed in row["seeds"]]
        steps = [line["step"] for line in courses[0]]
        together = [
            [100 * line[measure] for line in course] for course in courses if len(course) == len(steps)
        ]
        curves.append(Curve(row["title"], tuple(steps), np.array(together)))
    return study_picture(outcomes, curves, title=found["title"], measure=f"{TITLES[measure]}, percent")


def _spread(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean and standard deviation (None of a single one), in percent."""
    finite = [100 * value for value in values if value is not None and math.isfinite(value)]
    if not finite or len(finite) < len(values):
        return None
    deviation = float(np.std(finite, ddof=1)) if len(finite) > 1 else None
    return {"mean": float(np.mean(finite)), "deviation": deviation, "values": finite}


def _ours(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    spread = "" if found["deviation"] is None else f" ± {found['deviation']:.1f}"
    return f"{found['mean']:.1f}{spread}"


def _difference(value: float | None, base: float | None) -> str:
    return "" if value is None or base is None else f"{value - base:+.1f}"
