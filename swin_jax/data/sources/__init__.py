"""Data sets by name."""

from swin_jax.data.sources.base import Record, Source

__all__ = ["KINDS", "Record", "Source", "open_source"]

KINDS = ("shapes/easy", "shapes/hard", "pairs", "folder", "list", "zip_map", "tfds:<name>")


def open_source(kind: str, split: str, *, root: str | None = None) -> Source:
    """The examples of one split.

    Args:
      kind: "shapes/easy" or "shapes/hard" (drawn on first use); "pairs" (drawn as it is read); "folder"; "list" (a
        list file beside the pictures); "zip_map" (a zip with its list beside it); "tfds:<name>", with config and
        version as tfds writes them: "tfds:imagenet2012", "tfds:imagenet_resized/64x64:0.1.0".
      split: its name, e.g. "train" or "val"; for a folder the folder's name. "" is the only split of a tfds set.
      root: directory or zip of a folder; directory of the lists; tfds data directory of the others (None: the usual
        place).

    Raises:
      ValueError: kind or split is unknown, or the data are missing or not as expected.
    """
    # Imported where needed: tfds takes a second.
    if kind == "folder":
        from swin_jax.data.sources.folder import Folder

        if not root:
            raise ValueError("a folder of pictures needs its root: a directory or zip with train/<class>/*")
        return Folder(root, split)
    if kind in ("list", "zip_map"):
        from swin_jax.data.sources.listed import Listed

        if not root:
            raise ValueError(f"a {kind} needs its root: the directory in which the lists lie")
        return Listed(root, split, zipped=kind == "zip_map")
    if kind == "pairs":
        from swin_jax.data.sources.pairs import Pairs

        return Pairs(split)
    if kind.startswith("shapes/"):
        from swin_jax.data.sources.shapes import open_shapes

        return open_shapes(kind.removeprefix("shapes/"), split, root=root)
    if kind.startswith("tfds:"):
        from swin_jax.data.sources.tfds_source import open_tfds

        return open_tfds(kind.removeprefix("tfds:"), split, root=root)
    raise ValueError(f"the data source {kind!r} is unknown; known: {', '.join(KINDS)}")
