"""What torchvision's ResNet, timm's DeiT and transformers' UperNet compute from drawn weights, in our layout."""

from typing import Any

import numpy as np

# conftest.py has declared the compiled operators that torchvision lacks beside a CPU build of torch.
import timm
import torch
import torchvision
from transformers import SwinConfig, UperNetConfig, UperNetForSemanticSegmentation

from tests.parity import drawn

IGNORE = 255


def resnet(depths: tuple[int, ...], **fields: Any) -> torch.nn.Module:
    """A torchvision ResNet or ResNeXt with bottleneck blocks."""
    block = torchvision.models.resnet.Bottleneck
    return _drawn(torchvision.models.ResNet(block, list(depths), **fields))


def deit(**fields: Any) -> torch.nn.Module:
    """A timm ViT with a class token, as DeiT's."""
    return _drawn(timm.models.VisionTransformer(**fields))


def timm_model(name: str, **fields: Any) -> torch.nn.Module:
    """A model of timm's, by its name."""
    return _drawn(timm.create_model(name, **fields))


def all_mlp(*, residual: bool, **fields: Any) -> torch.nn.Module:
    """timm's MLP-Mixer or, with `residual`, ResMLP."""
    model = _drawn(_all_mlp(residual, fields))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(("alpha", "beta")):  # drawn as if they were kernels: brought to a norm's spread
                value *= 0.2 * value.shape[-1] ** 0.5
                value += name.endswith("alpha")
    return model


def _all_mlp(residual: bool, fields: dict) -> Any:
    parts = timm.models.mlp_mixer
    kind = {"block_layer": parts.ResBlock, "norm_layer": parts.Affine, "mlp_ratio": 4} if residual else {}
    return parts.MlpMixer(**kind, **fields)


def parameters_of(name: str, **resmlp: Any) -> int:
    """How many a model of timm's has, or a ResMLP with the fields `resmlp`; nothing is allocated."""
    with torch.device("meta"):
        model: Any = _all_mlp(True, resmlp) if resmlp else timm.create_model(name)
    return sum(value.numel() for value in model.parameters())


def classifier_gradients(model: Any, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The gradients of the mean cross-entropy, by timm's names."""
    logits = model(nchw(images))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    return {name: value.grad.numpy() for name, value in model.named_parameters()}


def upernet(*, channels: int, classes: int, **backbone: Any) -> torch.nn.Module:
    """A transformers UperNet on Swin without dropout or drop path."""
    stages = ["stage1", "stage2", "stage3", "stage4"]
    swin = SwinConfig(out_features=stages, drop_path_rate=0.0, **backbone)
    width = backbone["embed_dim"]
    config = UperNetConfig(
        backbone_config=swin,
        hidden_size=channels,
        num_labels=classes,
        auxiliary_channels=channels,
        auxiliary_in_channels=4 * width,
        loss_ignore_index=IGNORE,
    )
    return _drawn(UperNetForSemanticSegmentation(config))


def deconv_pyramid(channels: int) -> torch.nn.ModuleDict:
    """The layers of `DeconvPyramid`, by the names of its parameters."""
    up = lambda: torch.nn.ConvTranspose2d(channels, channels, 2, 2)  # noqa: E731
    layers = {"up4_0": up(), "bn": torch.nn.BatchNorm2d(channels), "up4_1": up(), "up8": up()}
    return _drawn(torch.nn.ModuleDict(layers))


def state(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Every parameter and running statistic."""
    # Copies: a training step changes running statistics in their place.
    values = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    unused = ("num_batches_tracked", "relative_position_index", "backbone.swin.layernorm.")
    return {name: value for name, value in values.items() if not any(part in name for part in unused)}


def outputs(model: Any, images: np.ndarray) -> np.ndarray:
    """The model's output for pictures `[B, H, W, 3]`."""
    with torch.no_grad():
        return model(nchw(images)).numpy()


def resnet_maps(model: Any, images: np.ndarray) -> list[np.ndarray]:
    """A ResNet's four maps `[B, h, w, C]`."""
    maps = []
    with torch.no_grad():
        x = model.maxpool(model.relu(model.bn1(model.conv1(nchw(images)))))
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = stage(x)
            maps.append(nhwc(x))
    return maps


def pyramid_maps(layers: Any, x: np.ndarray) -> list[np.ndarray]:
    """The four maps of `deconv_pyramid` from one `[B, h, w, C]`."""
    with torch.no_grad():
        x = nchw(x)
        finest = layers["up4_1"](torch.nn.functional.gelu(layers["bn"](layers["up4_0"](x))))
        maps = [finest, layers["up8"](x), x, torch.nn.functional.max_pool2d(x, 2)]
        return [nhwc(value) for value in maps]


def upernet_logits(model: Any, images: np.ndarray) -> np.ndarray:
    """Logits `[B, H, W, K]` at the size of the picture."""
    with torch.no_grad():
        return nhwc(model(nchw(images)).logits)


def upernet_training(model: Any, images: np.ndarray, labels: np.ndarray) -> tuple[float, dict, dict]:
    """Loss, gradients and running statistics of a step in training mode, by transformers' names."""
    model.train()
    loss = model(nchw(images), labels=torch.from_numpy(labels)).loss
    loss.backward()
    gradients = {
        name: value.grad.numpy() for name, value in model.named_parameters() if value.grad is not None
    }
    statistics = {name: value for name, value in state(model).items() if "running_" in name}
    model.eval()
    return float(loss.detach()), gradients, statistics


def nchw(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def nhwc(maps: torch.Tensor) -> np.ndarray:
    return maps.permute(0, 2, 3, 1).detach().numpy()


def _drawn(model: Any) -> Any:
    values = drawn.weights({name: tuple(value.shape) for name, value in state(model).items()})
    model.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()}, strict=False)
    return model.eval()
