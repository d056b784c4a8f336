"""A page of pictures with what is annotated beside what was found: static HTML, the worst first."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from swin_jax.data.decode import decode_picture
from swin_jax.setups.detection_files import LEAST_DRAWN, drawn
from swin_jax.tasks import pictures
from swin_jax.tasks.detection_scores import DetectionScorer, Matched, coco_masks, matched
from swin_jax.training.run_directory import write_atomically


def write_viewer(
    directory: epath.PathLike,
    source: Any,
    scorer: DetectionScorer,
    palette: np.ndarray,
    *,
    most: int,
    title: str,
) -> epath.Path:
    """Writes a page of annotated pictures beside what was found, the worst first; returns its place.

    Args:
        directory: for `index.html` and its pictures.
        source: the split that was scored.
        scorer: after the evaluation.
        palette: K colours.
        most: how many pictures, the worst of all.
        title: of the page.
    """
    truth = scorer.truth
    of_image: dict[int, list[Mapping[str, Any]]] = {number: [] for number in scorer.image_ids}
    for annotation in truth["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    judged = [
        (matched(of_image[image_id], scorer.found[image_id], scorer.category_ids), index, image_id)
        for index, image_id in enumerate(scorer.image_ids)
        if image_id in scorer.found
    ]
    judged.sort(key=lambda one: (one[0].f1, -one[0].missed - one[0].wrong, one[1]))
    directory = epath.Path(directory)
    rows = []
    for place, (quality, index, image_id) in enumerate(judged[:most]):
        record = source[index]
        picture = decode_picture(record["image"], record["name"])
        found = scorer.found[image_id]
        tiles = (
            _annotated(picture, of_image[image_id], scorer, palette),
            drawn(picture, found, scorer.class_names, palette, LEAST_DRAWN),
        )
        files = []
        for kind, tile in zip(("annotated", "found"), tiles, strict=True):
            files.append(f"pictures/{place:05d}_{kind}.png")
            write_atomically(directory / files[-1], pictures.png(tile))
        names = {one["id"]: one["name"] for one in truth["categories"]}
        classes = sorted({names[one["category_id"]] for one in of_image[image_id]})
        rows.append(_row(place, epath.Path(record["name"]).name, image_id, files, quality, classes))
    classes = sorted({name for row in rows for name in row.classes})
    page = PAGE.format(
        title=html.escape(title),
        count=len(rows),
        whole=len(judged),
        options="".join(f"<option>{html.escape(name)}</option>" for name in classes),
        rows="\n".join(row.markup for row in rows),
    )
    write_atomically(directory / "index.html", page.encode())
    return directory / "index.html"


class Row(NamedTuple):
    """A picture on the page: its HTML and its classes."""

    markup: str
    classes: Sequence[str]


def _annotated(
    picture: np.ndarray,
    annotations: Sequence[Mapping[str, Any]],
    scorer: DetectionScorer,
    palette: np.ndarray,
) -> np.ndarray:
    height, width = picture.shape[:2]
    mine = [one for one in annotations if not one["iscrowd"]]
    boxes = np.array([one["bbox"] for one in mine], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = np.array([scorer.category_ids.index(one["category_id"]) for one in mine], np.int64)
    masks = None
    if mine and "segmentation" in mine[0]:
        masks = np.stack([_bitmap(one["segmentation"], height, width) for one in mine])
    return pictures.draw_instances(
        picture, pictures.Shown(boxes, labels, None, masks), scorer.class_names, palette
    )


def _bitmap(shape: Any, height: int, width: int) -> np.ndarray:
    runs = shape
    if isinstance(shape, list):
        runs = coco_masks.merge(coco_masks.frPyObjects(shape, height, width))
    return coco_masks.decode(runs).astype(bool)


def _row(
    place: int, name: str, image_id: int, files: Sequence[str], quality: Matched, classes: Sequence[str]
) -> Row:
    told = f"{quality.right} right, {quality.wrong} wrong, {quality.missed} missed"
    markup = ROW.format(
        place=place,
        name=html.escape(name),
        image_id=image_id,
        f1=f"{quality.f1:.3f}",
        told=told,
        annotated=html.escape(files[0]),
        found=html.escape(files[1]),
        classes=html.escape(json.dumps(list(classes)), quote=True),
        listed=html.escape(", ".join(classes) or "no objects"),
    )
    return Row(markup, classes)


ROW = """<article data-place="{place}" data-f1="{f1}" data-name="{name}" data-classes="{classes}">
<h2>{name} <small>image {image_id}</small></h2>
<p><strong>F1 {f1}</strong> · {told} · {listed}</p>
<div class="pair">
<figure><img loading="lazy" src="{annotated}" alt="{name}, annotated"><figcaption>annotated</figcaption></figure>
<figure><img loading="lazy" src="{found}" alt="{name}, found"><figcaption>found</figcaption></figure>
</div>
</article>"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #22272e; --faint: #6b7480; --line: #d8dde3; --paper: #fff; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6e9ed; --faint: #9aa4b0; --line: #3a424c; --paper: #16191d; }}
}}
body {{ margin: 0 auto; max-width: 1200px; padding: 1rem; font: 16px/1.45 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); }}
h1 {{ font-size: 1.3rem; margin: 0 0 .3rem; }}
h2 {{ font-size: 1rem; margin: 0; overflow-wrap: anywhere; }}
p {{ margin: .2rem 0 .5rem; }}
small, figcaption, .hint {{ color: var(--faint); font-weight: normal; font-size: .85rem; }}
form {{ display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; margin: .8rem 0; }}
select {{ font: inherit; }}
article {{ border-top: 1px solid var(--line); padding: .9rem 0; }}
.pair {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: .8rem; }}
figure {{ margin: 0; }}
img {{ max-width: 100%; height: auto; display: block; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="hint">{count} of {whole} pictures, the worst first. F1 is 2 right / (2 right + wrong + missed): detections
with a score of .5 and more, each met with an object of its class from an IoU of the boxes of .5 on; those on crowds
count as neither. Drawn are detections with a score of .3 and more.</p>
<form>
<label>Class <select id="class"><option value="">all</option>{options}</select></label>
<label>Order <select id="order"><option value="worst">worst first</option><option value="best">best first</option>
<option value="name">by name</option></select></label>
<output id="shown" aria-live="polite"></output>
</form>
<main>
{rows}
</main>
<script>
const main = document.querySelector("main"), all = [...main.children];
const wanted = document.getElementById("class"), order = document.getElementById("order");
function show() {{
  const sorted = [...all].sort((a, b) => order.value === "name"
    ? a.dataset.name.localeCompare(b.dataset.name)
    : (a.dataset.place - b.dataset.place) * (order.value === "best" ? -1 : 1));
  let count = 0;
  for (const row of sorted) {{
    row.hidden = wanted.value !== "" && !JSON.parse(row.dataset.classes).includes(wanted.value);
    count += !row.hidden;
    main.append(row);
  }}
  document.getElementById("shown").textContent = `${{count}} pictures shown`;
}}
wanted.onchange = order.onchange = show;
document.querySelector("form").onsubmit = (event) => event.preventDefault();
show();
</script>
</body>
</html>
"""
