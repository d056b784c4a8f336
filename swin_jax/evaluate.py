"""Evaluates a run: every example of a split exactly once.

    python -m swin_jax.evaluate --workdir=runs/shapes
    python -m swin_jax.evaluate --workdir=runs/shapes --checkpoint=newest --split=train

Prints top-1, top-5, loss and mean class accuracy as JSON; writes `evaluation_<split>_<step>.json` and pictures
(confusion, per-class accuracy, a contact sheet) into the run directory. A run that averages its parameters is
evaluated by the average, into `evaluation_<split>_<step>_ema.json`, unless --parameters=plain is given.
"""

import json
from collections.abc import Sequence

import jax

from swin_jax import cli
from swin_jax.experiment import open_data
from swin_jax.restore import open_run
from swin_jax.training.evaluator import evaluate, make_predict_step, save_pictures

WORKDIR = cli.workdir_flag()
CHECKPOINT = cli.checkpoint_flag()
PARAMETERS = cli.parameters_flag()
SPLIT = cli.split_flag()
ROOT = cli.data_root_flag()
PLATFORM = cli.platform_flag()


def main(_: Sequence[str]) -> None:
    with cli.one_sentence():
        run = open_run(
            WORKDIR.value,
            checkpoint=CHECKPOINT.value,
            platform=PLATFORM.value,
            parameters=PARAMETERS.value,
        )
        config = run.config.copy_and_resolve_references()
        if ROOT.value:
            config.data.root = ROOT.value
        split = SPLIT.value or config.data.eval_split
        data = open_data(config, eval_split=split)
        if data.evaluation.class_names != run.class_names:
            raise ValueError(
                f"the run knows {len(run.class_names)} classes, the split {split!r} has other ones "
                f"({len(data.evaluation.class_names)}); evaluate on data with the classes of the training set"
            )
        params, model_state = run.load()
        batches = data.eval_batches(jax.process_index(), jax.process_count(), run.mesh.size)
        found = evaluate(
            run.task, make_predict_step(run.task, run.mesh), params, model_state, batches, run.mesh
        )
    result = {"step": run.step, "split": split, "parameters": run.kind, **found.scorer.result()}
    name = f"evaluation_{split}_{run.step}" + ("_ema" if run.kind == "ema" else "")
    if jax.process_index() == 0:
        with cli.one_sentence(OSError):
            (run.directory / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
            save_pictures(run.directory / "pictures", run.task, found)
        print(json.dumps(result))


if __name__ == "__main__":
    cli.run(main)
