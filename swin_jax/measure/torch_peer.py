"""The same model and the same recipe's loader in timm, for comparison in one run. Alone loads torch and timm."""

import contextlib
import functools
import importlib
import importlib.util
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from PIL import Image, ImageOps

from swin_jax.models.registry import create_model
from swin_jax.weights.peers import import_peer

OTHERWISE = {"mixer_base_patch16_224": "mixer_b16_224", "resmlp_small_24_224": "resmlp_24_224"}
"""timm's names of models that it calls otherwise than we do."""
TORCHVISION = {
    "swin_tiny_patch4_window7_224": "swin_t",
    "swin_small_patch4_window7_224": "swin_s",
    "swin_base_patch4_window7_224": "swin_b",
}


def missing() -> str:
    """Which of torch and timm is not installed, in words; "" if both are."""
    absent = [name for name in ("torch", "timm") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else ""


def lacking(name: str) -> str:
    """Why timm cannot run the model `name`, in words; "" if it can."""
    if absent := missing():
        return absent
    _, timm = load()
    return "" if timm.is_model(timm_name(name)) else f"timm has no model {timm_name(name)!r}"


def timm_name(name: str) -> str:
    """timm tells the number of classes apart, not the name; it calls some models otherwise."""
    return OTHERWISE.get(name, name.removesuffix("_22k"))


def load() -> tuple[Any, Any]:
    """The modules torch and timm."""
    timm = import_peer("timm")
    return importlib.import_module("torch"), timm


def libraries(name: str) -> tuple[str, ...]:
    """The installed libraries that have the model `name`, timm first."""
    found = [] if lacking(name) else ["timm"]
    found += [
        library
        for library, has in (("torchvision", name in TORCHVISION), ("transformers", name.startswith("swin_")))
        if has and importlib.util.find_spec(library) is not None and importlib.util.find_spec("torch")
    ]
    return tuple(found)


def _model(
    library: str, name: str, size: tuple[int, int], num_classes: int, drop_path_rate: float
) -> tuple[Any, Callable[[Any], Any]]:
    """The model of a library, and what takes the logits out of its output."""
    if library == "torchvision":
        make = getattr(import_peer("torchvision").models, TORCHVISION[name])
        return make(num_classes=num_classes), lambda output: output  # its drop path is fixed: 0.2 in Swin-T
    if library == "transformers":
        transformers, ours = import_peer("transformers"), cast(Any, create_model(name))
        config = transformers.SwinConfig(
            image_size=size,
            embed_dim=ours.embed_dim,
            depths=list(ours.depths),
            num_heads=list(ours.num_heads),
            window_size=ours.window_size,
            drop_path_rate=drop_path_rate,
            num_labels=num_classes,
        )
        return transformers.SwinForImageClassification(config), lambda output: output.logits
    options: dict[str, Any] = {"num_classes": num_classes, "drop_path_rate": drop_path_rate}
    if not name.startswith("resn"):  # ResNets and ResNeXts take any size, and are told none
        options["img_size"] = size
    return load()[1].create_model(timm_name(name), **options), lambda output: output


class Peer:
    """A model of another library on the accelerator jax uses, eager or compiled.

    Args:
        name: of the model, as ours.
        batch_size: of the random pictures.
        size: (height, width) of a picture.
        num_classes: of the head.
        drop_path_rate: of training.
        platform: "cpu" or "gpu".
        bfloat16: automatic mixed precision.
        library: one of `libraries`.
    """

    def __init__(
        self,
        name: str,
        *,
        batch_size: int,
        size: tuple[int, int],
        num_classes: int,
        drop_path_rate: float,
        platform: str,
        bfloat16: bool,
        library: str = "timm",
    ) -> None:
        self.torch = importlib.import_module("torch")
        self.device = self.torch.device("cuda" if platform == "gpu" else "cpu")
        self.bfloat16 = bfloat16
        model, self.logits = _model(library, name, size, num_classes, drop_path_rate)
        self.model = model.to(self.device)
        draw = np.random.default_rng(0)
        pictures = draw.standard_normal((batch_size, 3, *size), np.float32)
        self.pictures = self.torch.from_numpy(pictures).to(self.device)
        self.labels = self.torch.from_numpy(draw.integers(num_classes, size=batch_size)).to(self.device)

    def inference(self, *, compiled: bool) -> Callable[[], None]:
        """One pass in evaluation mode, run to its end."""
        torch = self.torch
        forward = torch.compile(self.model) if compiled else self.model

        def run() -> None:
            self.model.eval()
            with torch.inference_mode(), self._precision():
                forward(self.pictures)
            self._finish()

        return run

    def training_step(self, *, compiled: bool) -> Callable[[], None]:
        """Forward, backward, clipping of the gradient's norm and AdamW, as the published recipe has them."""
        torch = self.torch
        forward = torch.compile(self.model) if compiled else self.model
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0.05)
        loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)

        def run() -> None:
            self.model.train()
            optimizer.zero_grad(set_to_none=True)
            with self._precision():
                logits = self.logits(forward(self.pictures))
            loss_of(logits.float(), self.labels).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            optimizer.step()
            self._finish()

        return run

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        with self.torch.autocast(self.device.type, self.torch.bfloat16, enabled=self.bfloat16):
            yield

    def _finish(self) -> None:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()


@runtime_checkable
class Records(Protocol):
    """Encoded pictures with their labels, any of them on its own."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


class PillowPictures:
    """Records as timm's own data set reads them: decoded by Pillow, then timm's transform of the published recipe.

    As long as an epoch of ImageNet, whatever the source holds, so that no epoch ends within a measurement. It travels
    into worker processes, where the transform is made.
    """

    def __init__(self, source: Records, size: tuple[int, int]) -> None:
        self.source, self.size = source, size

    @functools.cached_property
    def transform(self) -> Callable[[Any], Any]:
        return _timm_data().create_transform(
            self.size,
            is_training=True,
            use_prefetcher=True,
            auto_augment="rand-m9-mstd0.5-inc1",
            interpolation="bicubic",
            color_jitter=0.4,
            re_prob=0.25,
            re_mode="pixel",
        )

    def __len__(self) -> int:
        return 1_281_167

    def __getitem__(self, index: int) -> tuple[Any, int]:
        record = self.source[index % len(self.source)]
        with Image.open(io.BytesIO(record["image"])) as picture:
            return self.transform(picture.convert("RGB")), int(record["label"])


class MixupCollate:
    """timm's mixup and cutmix of the published recipe, on uint8 pictures while they become a batch."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    @functools.cached_property
    def collate(self) -> Callable[[Any], Any]:
        return _timm_data().FastCollateMixup(
            mixup_alpha=0.8,
            cutmix_alpha=1.0,
            switch_prob=0.5,
            label_smoothing=0.1,
            num_classes=self.num_classes,
        )

    def __call__(self, rows: Any) -> Any:
        return self.collate(rows)


def _timm_data() -> Any:
    load()
    operations = importlib.import_module("timm.data.auto_augment").NAME_TO_OP
    operations["PosterizeIncreasing"] = _posterize
    return importlib.import_module("timm.data")


def _posterize(picture: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm's operation: at full strength it keeps no bit, which newer Pillow refuses where older gave black."""
    if bits >= 8:
        return picture
    return ImageOps.posterize(picture, bits) if bits else Image.new(picture.mode, picture.size)


def training_batches(
    source: Records, *, size: tuple[int, int], batch_size: int, workers: int, num_classes: int
) -> Iterator[Any]:
    """timm's training loader with the published recipe, without end: resized crop, flip, RandAugment, mixup/cutmix.

    As timm feeds an accelerator: uint8 pictures, mixed while they are collated; normalisation and random erasing are
    the accelerator's, as they are in ours.
    """
    torch, _ = load()
    loader = torch.utils.data.DataLoader(
        PillowPictures(source, size),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        collate_fn=MixupCollate(num_classes),
        multiprocessing_context="spawn" if workers else None,
    )
    return iter(loader)
