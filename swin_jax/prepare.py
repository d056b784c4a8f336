"""Packs a data set's archive into ArrayRecord, for reading at random without unpacking it.

    python -m swin_jax.prepare --source=ade20k --archive=/data/ADEChallengeData2016.zip --data_root=/data/tfds
    python -m swin_jax.prepare --source=coco --splits=train2017,val2017 --archive=/data/coco --data_root=/data/tfds

COCO's label maps of things and stuff go along where the archive has them, in stuffthingmaps/<split>/.
Prints the fields of a config that read it. The archive may also be the folder that it unpacks to; both can be read
as they are as well, with `--config.data.source=ade20k --config.data.root=/data/ADEChallengeData2016.zip`.
"""

from collections.abc import Sequence

from absl import flags

from swin_jax import cli
from swin_jax.training.preflight import nearest

SOURCE = flags.DEFINE_string("source", "ade20k", "Data set: ade20k or coco.")
ARCHIVE = flags.DEFINE_string("archive", "", "Its zip, or the folder that it unpacks to.")
SPLITS = flags.DEFINE_list("splits", ["train2017", "val2017"], "COCO: which splits.")
ROOT = cli.data_root_flag()

SOURCES = ("ade20k", "coco")


def main(_: Sequence[str]) -> None:
    with cli.one_sentence():
        if SOURCE.value not in SOURCES:
            raise ValueError(f"--source is {SOURCE.value!r}; {nearest(SOURCE.value, SOURCES)}")
        for flag, value in (("archive", ARCHIVE.value), ("data_root", ROOT.value)):
            if not value:
                raise ValueError(f"--{flag} is missing; see --help for an example")
        from swin_jax.data.sources import ade20k, coco_records  # tfds takes a second

        if SOURCE.value == "coco":
            name = coco_records.prepare(ARCHIVE.value, SPLITS.value, ROOT.value)
        else:
            name = ade20k.prepare(ARCHIVE.value, ROOT.value)
    print(f"--config.data.source={name} --config.data.root={ROOT.value}")


if __name__ == "__main__":
    cli.run(main)
