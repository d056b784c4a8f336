"""The same model in timm, for comparison in one run. The one place that imports torch and timm."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def missing() -> str:
    """Which of torch and timm is not installed; "" if both are."""
    return " and ".join(name for name in ("torch", "timm") if importlib.util.find_spec(name) is None)


def load() -> tuple[Any, Any]:
    """The modules torch and timm.

    A torch without accelerator beside a torchvision built for one lacks operators that torchvision names at import.
    """
    import torch

    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch._swin_jax_torchvision = library  # the definitions live as long as the library  # type: ignore
    import timm

    return torch, timm


class Peer:
    """A timm model on the accelerator jax uses, eager or compiled.

    Args:
        name: of the model; ours and timm's names are the same.
        batch_size: of the random pictures.
        size: (height, width) of a picture.
        num_classes: of the head.
        drop_path_rate: of training.
        platform: "cpu" or "gpu".
        bfloat16: automatic mixed precision.
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
    ) -> None:
        self.torch, timm = load()
        self.device = self.torch.device("cuda" if platform == "gpu" else "cpu")
        self.bfloat16 = bfloat16
        options = {"num_classes": num_classes, "drop_path_rate": drop_path_rate, "img_size": size}
        self.model = timm.create_model(name, **options).to(self.device)
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
                logits = forward(self.pictures)
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
