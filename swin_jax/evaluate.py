"""Evaluates a run: every example of a split exactly once.

    python -m swin_jax.evaluate --workdir=runs/shapes
    python -m swin_jax.evaluate --workdir=runs/shapes --checkpoint=newest --split=train
    python -m swin_jax.evaluate --workdir=runs/swin_tiny --data=tfds:imagenet_v2/matched-frequency
    python -m swin_jax.evaluate --workdir=runs/swin_tiny --data=zip_map --data_root=/data/other --split=val
    python -m swin_jax.evaluate --workdir=runs/ade20k --multi_scale
    python -m swin_jax.evaluate --workdir=runs/ade20k --predictions=maps/
    python -m swin_jax.evaluate --workdir=runs/coco --split=val2017 --viewer=200
    python -m swin_jax.evaluate --workdir=runs/cascade --stages=1

Prints a classifier's top-1, top-5, loss and mean class accuracy, a segmenter's mean IoU, pixel accuracy and mean class
accuracy, or a detector's average precision of boxes and masks (by pycocotools), as JSON; writes them, with each class's
own figures, to `evaluation_<split>_<step>.json`, and pictures (figures by class, a contact sheet, maps or detections, a
classifier's confusion, a detector's precision over recall) into the run directory, of other data with their name in the
file's and in a folder of their own. Without --split: the run's evaluation split, or the only one of a
tfds set. A run that averages its parameters is evaluated by the average, into `evaluation_<split>_<step>_ema.json`,
unless --parameters=plain is given.

On other data, classes are matched by name (of ImageNet the wnid), and all of the run's classes compete, but for
ImageNet-A and -R: those have pictures of 200 classes, and by their authors' protocol only these compete
(`--classes=present`). For the labels of ReaL (`tfds:imagenet2012_real`) a guess is right if it is one of a picture's
labels, pictures without any are not counted, and of several labels the most probable one makes loss and class.

A detector's detections are written to `detections_<split>_<step>.json`, COCO's result format, and the --viewer worst
pictures to a page, `viewer_<split>_<step>/index.html`, with their annotations beside.

--predictions scores label files of a whole split (a detector's: a COCO result file), which `predict` or another program
wrote, without a model.

Runs on several hosts as train does.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Any, cast

import jax
from absl import flags

from swin_jax import cli
from swin_jax.data.decode import UnreadablePicture
from swin_jax.data.sources import Source
from swin_jax.data.sources.renumbered import present_classes, renumber
from swin_jax.inputs import evaluation_batches, inputs_of, truth_of
from swin_jax.restore import Run, open_run
from swin_jax.setups import detection_files, label_files, viewer
from swin_jax.tasks.classification import Classification
from swin_jax.tasks.detection import Detection
from swin_jax.tasks.detection_scores import DetectionScorer
from swin_jax.tasks.task import Scorer
from swin_jax.training import hosts
from swin_jax.training.evaluator import Evaluation, evaluate, make_predict_step, save_pictures
from swin_jax.training.watch import Watch, alone

WORKDIR = cli.workdir_flag()
CHECKPOINT = cli.checkpoint_flag()
DATA = flags.DEFINE_string("data", "", "Other data than the run's: a source as in config.data.source.")
PARAMETERS = cli.parameters_flag()
SPLIT = cli.split_flag()
ROOT = cli.data_root_flag()
CLASSES = flags.DEFINE_enum(
    "classes",
    None,
    ["all", "present"],
    "Which classes compete: all of the run, or those that occur in the split.",
)
PLATFORM = cli.platform_flag()
PREDICTIONS = flags.DEFINE_string("predictions", "", "Label files or result file to score; see above.")
VIEWER = flags.DEFINE_integer("viewer", 100, "Detection: pictures on the page; 0 writes none.", lower_bound=0)
LABEL_FORMAT = cli.label_format_flag()
cli.multi_scale_flag()
cli.window_flag()
cli.stages_flag()
cli.hosts_flags()

PRESENT_ONLY = ("imagenet_a", "imagenet_r")
"""tfds sets of 200 of the 1000 classes, scored among these (Hendrycks et al., 2021)."""


def main(_: Sequence[str]) -> None:
    with cli.joined_hosts() as watch:
        with cli.one_sentence(ValueError, UnreadablePicture):
            run = open_run(
                WORKDIR.value,
                checkpoint=CHECKPOINT.value,
                platform=PLATFORM.value,
                parameters=PARAMETERS.value,
                overrides=cli.inference_overrides(),
            )
            classifies = run.config.task == "classification"
            if CLASSES.value == "present" and not classifies:
                raise ValueError("--classes=present is for classifiers; every class of other models competes")
            kind, root = DATA.value or run.config.data.source, ROOT.value or root_of(run, DATA.value)
            split = SPLIT.value or ("" if DATA.value.startswith("tfds:") else run.config.data.eval_split)
            source = open_classes(run, kind, split, root)
            classes, found = None, None
            if PREDICTIONS.value:
                scorer = score_predictions(run, source)
            else:
                classes = candidates(source, kind, CLASSES.value) if classifies else None
                found = evaluate_on(run, source, classes, watch)
                scorer = found.scorer
            if not scorer.result()["examples"]:
                raise ValueError(f"{source.identity} has no labels; evaluate a split that has")
        if not hosts.writer():
            return
        of_the_run = {} if PREDICTIONS.value else {"step": run.step, "parameters": run.kind}
        result = {"split": split, **of_the_run, **scorer.result()}
        if DATA.value:
            result["data"] = source.identity
            if classifies:
                result["classes"] = len(classes or run.class_names)
        place = slug(f"{DATA.value} {split}" if DATA.value else split)
        pictures = run.directory / "pictures" / (place if DATA.value else "")
        name = f"evaluation_{place}_{'predictions' if PREDICTIONS.value else inference_of(run)}"
        with cli.one_sentence(OSError):
            written = {**result, "by_class": finite(scorer.by_class())}
            (run.directory / f"{name}.json").write_text(json.dumps(written, indent=1) + "\n")
            if found is not None:
                save_pictures(pictures, run.task, found)
            if isinstance(scorer, DetectionScorer):
                leave_detections(run, source, scorer, name.removeprefix("evaluation_"))
        print(json.dumps(result))


def inference_of(run: Run) -> str:
    """What tells one evaluation of a split from another: the step, the parameters, how pictures were seen."""
    side, stages = cli.window_flag().value, cli.stages_flag().value
    return (
        str(run.step)
        + "_multi_scale" * cli.multi_scale_flag().value
        + (f"_window{side}" if side else "")
        + (f"_stages{stages}" if stages else "")
        + "_ema" * (run.kind == "ema")
    )


def open_classes(run: Run, kind: str, split: str, root: str) -> Source:
    """A source whose classes are the run's: of a classifier's, those of the same names.

    Raises:
        ValueError: the data are missing, or have classes that the run does not have.
    """
    source = inputs_of(run.config).open_source(kind, split, root=root or None)
    if run.config.task == "classification":
        return renumber(source, run.class_names)
    if source.class_names != run.class_names:
        raise ValueError(
            f"the run knows {len(run.class_names)} classes, the split {split!r} has other ones "
            f"({len(source.class_names)}); evaluate on data with the classes of the training set"
        )
    return source


def score_predictions(run: Run, source: Source) -> Scorer:
    if isinstance(run.task, Detection):
        scorer = run.task.scorer(truth_of(source))
        scorer.add_results(detection_files.read_results(PREDICTIONS.value), PREDICTIONS.value)
        return scorer
    if run.coding is None:
        raise ValueError("--predictions is for label maps and detections, and the run has no such task")
    label_files.check_format(LABEL_FORMAT.value)
    return label_files.score_folder(source, PREDICTIONS.value, run.coding, LABEL_FORMAT.value)


def leave_detections(run: Run, source: Source, scorer: DetectionScorer, name: str) -> None:
    """Writes the result file and the viewer page of an evaluation."""
    if not PREDICTIONS.value:
        detection_files.write_results(run.directory / f"detections_{name}.json", scorer.results())
    if VIEWER.value:
        page = viewer.write_viewer(
            run.directory / f"viewer_{name}",
            source,
            scorer,
            cast(Detection, run.task).palette,
            most=VIEWER.value,
            title=f"{run.config.model.name}, {source.identity}, {name}",
        )
        cli.say(f"viewer: {page}")


def finite(values: dict[str, dict[str, float]]) -> dict[str, Any]:
    """None in place of NaN, which JSON does not have."""
    return {
        measure: {name: None if math.isnan(value) else value for name, value in of_class.items()}
        for measure, of_class in values.items()
    }


def root_of(run: Run, kind: str) -> str:
    """Where the data are if nobody says: the run's own place for its own source, and for another tfds set."""
    source = run.config.data.source
    alike = kind in ("", source) or (kind.startswith("tfds:") and source.startswith("tfds:"))
    return run.config.data.root if alike else ""


def candidates(source: Source, kind: str, wanted: str | None) -> tuple[int, ...] | None:
    """The classes that compete; None for all. Raises ValueError where no picture has a label."""
    name = re.split("[/:]", kind.removeprefix("tfds:"))[0]
    if (wanted or ("present" if name in PRESENT_ONLY else "all")) == "all":
        return None
    present = present_classes(source)
    if not present:
        raise ValueError(f"{source.identity} has no labels; evaluate a split that has")
    return present


def evaluate_on(
    run: Run, source: Source, classes: tuple[int, ...] | None = None, watch: Watch | None = None
) -> Evaluation:
    """Scores the run on a source whose classes are the run's, choosing among `classes` (None: all)."""
    task = run.task if classes is None else cast(Classification, run.task).among(classes)
    params, model_state = run.load()
    batches = evaluation_batches(run.config, source, jax.process_index(), jax.process_count(), run.mesh.size)
    followed = (watch or alone()).follow(batches, "evaluation", 1)
    predict_step = make_predict_step(task, run.mesh)
    return evaluate(task, predict_step, params, model_state, followed, run.mesh, truth_of(source))


def slug(text: str) -> str:
    """A name for files: "tfds:imagenet_v2/topimages" becomes tfds_imagenet_v2_topimages."""
    return re.sub(r"[^\w.]+", "_", text).strip("_")


if __name__ == "__main__":
    cli.run(main)
