"""Says what is on pictures, with a trained run.

    python -m swin_jax.predict --workdir=runs/flowers photo.jpg holiday/ 'more/*.png'
    python -m swin_jax.predict --workdir=runs/shapes --split=val --count=16 --json
    python -m swin_jax.predict --workdir=runs/flowers --attention --attention_query=0.4,0.6 photo.jpg
    python -m swin_jax.predict --workdir=runs/ade20k --maps=maps photo.jpg
    python -m swin_jax.predict --workdir=runs/coco --least_score=0.5 photo.jpg
    python -m swin_jax.predict --workdir=runs/ade20k --maps=server --label_format=dataset release_test/testing

Takes files, directories (searched through) and globs, or pictures of the run's own data set (--count=0: all).
A classifier's most probable classes of each are printed as a table or, with --json, one object a line, and drawn on a
contact sheet. With --attention it is also drawn for each picture, for the last block of every stage or those of
--attention_blocks: the window of a query, what the query attends to, and the attention that every token receives.
A segmenter writes for each picture `labels/<name>.png`, the class of every pixel in the data set's palette, and
`overlays/<name>.png` with a legend, and prints the classes by their share of the picture.
A detector draws what it is at least --least_score sure of on each picture, `<name>.png`, writes all detections to
`detections.json` (COCO's result format; of files, the image_id is the file's name), and prints those drawn.
"""

import glob
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from absl import flags
from etils import epath

from swin_jax import cli
from swin_jax.attention_pictures import Shown, attention_step, choose_attention, draw_attention
from swin_jax.data.decode import UnreadablePicture, decode_picture
from swin_jax.data.pipeline import eval_batches
from swin_jax.data.sources import Source
from swin_jax.data.sources.files import PICTURE_SUFFIXES, Files, Subset
from swin_jax.inputs import eval_example, open_data
from swin_jax.restore import Run, open_run, read_categories
from swin_jax.setups import detection_files, label_files
from swin_jax.tasks import pictures
from swin_jax.tasks.detection import Detection
from swin_jax.tasks.detection_scores import Found, coco_results, detections_of
from swin_jax.training.evaluator import make_predict_step
from swin_jax.training.run_directory import RunDirectoryError, write_atomically
from swin_jax.training.sharding import local_rows, put_batch

WORKDIR = cli.workdir_flag()
CHECKPOINT = cli.checkpoint_flag()
PARAMETERS = cli.parameters_flag()
TOP = flags.DEFINE_integer("top", 5, "How many classes to print for each picture.", lower_bound=1)
JSON = cli.json_flag()
SHEET = flags.DEFINE_string("sheet", "", "Contact sheet to write; <workdir>/pictures/predict.png when empty.")
SPLIT = cli.split_flag()
COUNT = flags.DEFINE_integer("count", 16, "How many pictures of the split; 0: all.", lower_bound=0)
BATCH_SIZE = cli.batch_size_flag()
PLATFORM = cli.platform_flag()
MAPS = flags.DEFINE_string(
    "maps", "", "Directory of a segmenter's maps or a detector's pictures; <workdir>/predictions when empty."
)
LEAST_SCORE = flags.DEFINE_float(
    "least_score",
    0.3,
    "Detection: from which score on detections are drawn.",
    lower_bound=0.0,
    upper_bound=1.0,
)
LABEL_FORMAT = cli.label_format_flag()
cli.multi_scale_flag()
cli.window_flag()
cli.stages_flag()

ATTENTION = flags.DEFINE_bool("attention", False, "Draw attention and windows, a picture for each picture.")
ATTENTION_DIR = flags.DEFINE_string("attention_dir", "", "Where to; <workdir>/pictures/attention when empty.")
ATTENTION_BLOCKS = flags.DEFINE_list(
    "attention_blocks", [], "Blocks to show, such as stage2/block5; the last of each stage when empty."
)
ATTENTION_QUERY = flags.DEFINE_string(
    "attention_query", "0.5,0.5", "Where the query is: y,x as fractions of the picture, from its upper left."
)

SHEET_PICTURES = 48


def main(arguments: Sequence[str]) -> None:
    with cli.one_sentence(ValueError, UnreadablePicture, RunDirectoryError):
        paths = find_pictures(arguments[1:])
        if not paths and not SPLIT.value:
            raise ValueError("no pictures are named: give files, directories or globs, or --split=val")
        if paths and SPLIT.value:
            raise ValueError(f"both files and --split={SPLIT.value} are given; choose one")
        asked = attention_asked()
        run = open_run(
            WORKDIR.value,
            checkpoint=CHECKPOINT.value,
            platform=PLATFORM.value,
            parameters=PARAMETERS.value,
            overrides=cli.inference_overrides(),
        )
        shown = choose_attention(run, ATTENTION_BLOCKS.value, ATTENTION_QUERY.value) if asked else None
        source = Files(paths) if paths else split_pictures(run, SPLIT.value, COUNT.value)
        if run.config.task == "segmentation":
            show_maps(run, source)
        elif run.config.task == "detection":
            show_detections(run, source)
        else:
            show_classes(run, source, shown)


def show_classes(run: Run, source: Source, shown: Shown | None) -> None:
    rows = list(name_classes(run, source, shown))
    sheet = SHEET.value or str(run.directory / "pictures" / "predict.png")
    write_atomically(sheet, pictures.png(contact_sheet(rows[:SHEET_PICTURES])))
    print_rows(rows)
    cli.say(f"contact sheet: {sheet}")
    if shown is not None:
        cli.say(f"attention: {attention_directory(run)}")


def attention_asked() -> bool:
    """Raises ValueError if it is not asked for, but how it should be."""
    for flag in (ATTENTION_DIR, ATTENTION_BLOCKS, ATTENTION_QUERY):
        if flag.present and not ATTENTION.value:
            raise ValueError(f"--{flag.name} belongs to --attention, which is missing")
    return ATTENTION.value


def attention_directory(run: Run) -> str:
    return ATTENTION_DIR.value or str(run.directory / "pictures" / "attention")


def show_maps(run: Run, source: Source) -> None:
    """Raises ValueError where two pictures would be written to one file."""
    label_files.check_format(LABEL_FORMAT.value)
    if run.coding is None:
        raise ValueError(f"{run.directory} has no labels.json, which says what label values mean")
    label_files.check_file_names([source[index]["name"] for index in range(len(source))])
    directory = MAPS.value or str(run.directory / "predictions")
    for batch, predictions in predicted(run, source, BATCH_SIZE.value or 1):
        for row in np.flatnonzero(batch["valid"]):
            record = source[int(batch["example_index"][row])]
            height, width = batch["size"][row]
            classes = predictions["classes"][row, :height, :width]
            shares = label_files.write_prediction(directory, record, classes, run.coding, LABEL_FORMAT.value)
            print_shares(record["name"], shares)
    cli.say(f"maps: {directory}/{label_files.LABELS}, {directory}/{label_files.OVERLAYS}")


def show_detections(run: Run, source: Source) -> None:
    """Raises ValueError where two pictures would be drawn to one file."""
    label_files.check_file_names([source[index]["name"] for index in range(len(source))])
    task = cast(Detection, run.task)
    categories = read_categories(run.directory, len(run.class_names))
    directory, results = epath.Path(MAPS.value or run.directory / "predictions"), []
    for batch, predictions in predicted(run, source, BATCH_SIZE.value or 1):
        for row in np.flatnonzero(batch["valid"]).tolist():
            record, found = source[int(batch["example_index"][row])], detections_of(batch, predictions, row)
            name = label_files.file_name(record["name"])
            results += coco_results(record.get("image_id", name), found, categories)
            picture = decode_picture(record["image"], record["name"])
            drawn = detection_files.drawn(picture, found, run.class_names, task.palette, LEAST_SCORE.value)
            write_atomically(directory / f"{name}.png", pictures.png(drawn))
            print_detections(record["name"], run.class_names, found)
    detection_files.write_results(directory / "detections.json", results)
    cli.say(f"pictures and detections.json: {directory}")


def print_detections(name: str, class_names: Sequence[str], found: Found) -> None:
    """Those that are drawn, the best first."""
    kept = [place for place in np.argsort(-found.scores) if found.scores[place] >= LEAST_SCORE.value]
    told = [
        {
            "class": class_names[int(found.labels[place])],
            "score": round(float(found.scores[place]), 6),
            "box": [round(float(value), 2) for value in found.boxes[place]],
        }
        for place in kept
    ]
    if JSON.value:
        print(json.dumps({"name": name, "detections": told}))
    else:
        print(f"{name}  " + "  ".join(f"{one['class']} {one['score']:.1%}" for one in told))


def print_shares(name: str, shares: Mapping[str, float]) -> None:
    if JSON.value:
        classes = [{"class": key, "share": round(value, 6)} for key, value in shares.items()]
        print(json.dumps({"name": name, "classes": classes}))
        return
    first = list(shares.items())[: TOP.value]
    print(f"{name}  " + "  ".join(f"{key} {value:.1%}" for key, value in first))


def find_pictures(arguments: Sequence[str]) -> list[str]:
    """The files that the arguments mean, in their order, directories sorted by name.

    Raises:
        ValueError: an argument means no picture.
    """
    found: list[str] = []
    for argument in arguments:
        if os.path.isdir(argument):
            inside = sorted(str(path) for path in Path(argument).rglob("*") if path.is_file())
            matches = [path for path in inside if path.lower().endswith(PICTURE_SUFFIXES)]
        elif os.path.exists(argument):
            matches = [argument]
        else:
            matches = sorted(path for path in glob.glob(argument, recursive=True) if os.path.isfile(path))
        if not matches:
            raise ValueError(
                f"{argument!r} is no picture, no directory with pictures and no glob that matches"
            )
        found += matches
    return found


def split_pictures(run: Run, split: str, count: int) -> Source:
    """Pictures spread evenly over a split of the data the run was trained on; all of them for 0."""
    source = open_data(run.config, eval_split=split).evaluation
    indices = np.linspace(0, len(source) - 1, min(count or len(source), len(source))).round().astype(int)
    return Subset(source, tuple(indices.tolist()))


def predicted(
    run: Run, source: Source, batch_size: int, *more: Callable[..., Any]
) -> Iterator[tuple[Any, ...]]:
    """Each batch with its predictions, and what `more` steps of the same arguments give, all on the host."""
    params, model_state = run.load()
    steps = (make_predict_step(run.task, run.mesh), *more)
    size = -(-batch_size // run.mesh.size) * run.mesh.size
    for batch in eval_batches(source, eval_example(run.config), batch_size=size, threads=4):
        placed = put_batch({name: batch[name] for name in run.task.predict_fields}, run.mesh)
        found = [step(params, model_state, placed) for step in steps]
        yield batch, *jax.tree.map(local_rows, found)


def name_classes(run: Run, source: Source, shown: Shown | None = None) -> Iterator[dict[str, Any]]:
    """One row a picture: `name`, `image` as the model saw it, `top` [(class, probability), ...], `label` or None.

    With `shown` also `attention`, the file of its picture, which is written on the way.
    """
    attend = () if shown is None else (attention_step(run, shown),)
    for batch, predictions, *maps in predicted(run, source, BATCH_SIZE.value or 32, *attend):
        probabilities = np.exp(predictions["log_probabilities"])
        for row in np.flatnonzero(batch["valid"]).tolist():
            order = np.argsort(-probabilities[row], kind="stable")[: TOP.value]
            label = int(batch["label"][row])
            index = int(batch["example_index"][row])
            found = {
                "name": source[index]["name"],
                "image": batch["image"][row],
                "top": [(run.class_names[index], float(probabilities[row, index])) for index in order],
                "label": run.class_names[label] if label >= 0 else None,
            }
            if shown is not None:
                drawn = draw_attention(shown, batch["image"][row], maps[0], row)
                found["attention"] = attention_file(run, index, found["name"])
                write_atomically(found["attention"], pictures.png(drawn))
            yield found


def attention_file(run: Run, index: int, name: str) -> str:
    """Numbered, because pictures of several directories may have one name."""
    stem = re.sub(r"[^\w.-]+", "_", os.path.splitext(os.path.basename(name))[0])
    return os.path.join(attention_directory(run), f"{index:04d}_{stem}.png")


def contact_sheet(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    captions = [f"{row['top'][0][0]} {row['top'][0][1]:.0%}\n{os.path.basename(row['name'])}" for row in rows]
    correct = [None if row["label"] is None else row["label"] == row["top"][0][0] for row in rows]
    return pictures.contact_sheet(np.stack([row["image"] for row in rows]), captions, correct=correct)


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    if JSON.value:
        for row in rows:
            top = [{"class": name, "probability": round(value, 6)} for name, value in row["top"]]
            file = {"attention": row["attention"]} if "attention" in row else {}
            print(json.dumps({"name": row["name"], "label": row["label"], "top": top} | file))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:<{width}}  " + "  ".join(f"{name} {value:.1%}" for name, value in row["top"]))


if __name__ == "__main__":
    cli.run(main, takes_arguments=True)
