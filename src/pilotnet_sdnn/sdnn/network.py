"""PilotNet as lava-dl sigma-delta blocks: the network of lava-dl's tutorial.

Tensors are as lava-dl takes them: (N, C, H, W, T) up to the last convolution and (N, C, T) after it,
for N sequences of T frames. Layers are numbered as in the tutorial's table: layer-0 encodes the
input, layer-1 to layer-4 convolve, layer-5 to layer-7 are dense, layer-8 decodes the angle.
"""

import io
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pilotnet_sdnn.dataset.store import FRAME_SHAPE
from pilotnet_sdnn.errors import check_present, damaged
from pilotnet_sdnn.files import atomic_write
from pilotnet_sdnn.sdnn.lava import slayer

LAYERS = tuple(f"layer-{i}" for i in range(9))
NO_THRESHOLD = 2.0**-12  # the smallest message there is: every change is sent
THRESHOLD_STEPS = 64  # in a threshold of 1 on Loihi 2
LARGEST_NUMBER = 1e6  # of a network; the export multiplies numbers, and infinities have no integers


class NetworkOutput(NamedTuple):
    """What one pass over a batch of N sequences of T frames gives."""

    angles: Tensor  # (N, T) predicted steering angle, radians
    rates: Tensor  # (9,) mean magnitude of what each layer puts out, what the event-rate loss acts on
    events: Tensor  # (8,) events sent after each sequence's first frame; layer-8 is read out, it sends none


class Network(torch.nn.Module):
    """The tutorial's network: its state_dict loads in the tutorial's class, and the other way round.

    Stock lava-dl gives blocks and batch-norm means their shapes in the first forward pass. Here they
    have them from the start, so a checkpoint loads, and exports, without a pass over data.
    """

    def __init__(
        self,
        threshold: float | Sequence[float] = 0.1,
        dense_threshold: float = 0.1,
        tau_grad: float = 0.5,
        scale_grad: float = 1.0,
        dropout: float = 0.2,
        weight_scale: float = 2.0,
        corrected: bool = False,
    ) -> None:
        """Args:
        threshold: the initial change of activation that makes a neuron send, of layer-0 to layer-4 or of each of
            them; learned, one per layer. As in lava-dl, it starts rounded down to a 64th, the step of Loihi 2.
            Where it is 0, every change is sent, and nothing is learned.
        dense_threshold: the same of layer-5 to layer-7.
        tau_grad: width of the surrogate gradient of the threshold.
        scale_grad: its height.
        dropout: of the dense layers.
        weight_scale: of the initial weights.
        corrected: neurons send later what rounding takes off a message, as later versions of lava do. lava-dl's lose
            it, and so does `forward`; `kernels` computes both.
        """
        super().__init__()
        thresholds = [threshold] * 5 if isinstance(threshold, int | float) else list(threshold)
        thresholds += [dense_threshold] * 4  # the last is the readout's, which sends no events
        neuron = {
            "threshold": NO_THRESHOLD,
            "tau_grad": tau_grad,
            "scale_grad": scale_grad,
            "requires_grad": True,
            "shared_param": True,
            "activation": F.relu,
        }
        drop = slayer.neuron.Dropout(p=dropout)

        def normed(features: int, **more: torch.nn.Module) -> dict:
            return {**neuron, "norm": partial(slayer.neuron.norm.MeanOnlyBatchNorm, num_features=features), **more}

        block = slayer.block.sigma_delta
        weights = {"weight_scale": weight_scale, "weight_norm": True}
        self.blocks = torch.nn.ModuleList([
            block.Input(neuron),
            block.Conv(normed(24), 3, 24, 3, stride=2, **weights),
            block.Conv(normed(36), 24, 36, 3, stride=2, **weights),
            block.Conv(normed(64), 36, 64, 3, stride=(2, 1), padding=(1, 0), **weights),
            block.Conv(normed(64), 64, 64, 3, stride=1, **weights),
            block.Flatten(),
            block.Dense(normed(100, dropout=drop), 64 * 2 * 20, 100, **weights),
            block.Dense(normed(50, dropout=drop), 100, 50, **weights),
            block.Dense(normed(10, dropout=drop), 50, 10, **weights),
            block.Output(normed(1, dropout=drop), 10, 1, **weights),
        ])  # fmt: skip
        for block, initial in zip(self.layers, thresholds, strict=True):
            block.neuron.delta.threshold.data.fill_(max(int(initial * THRESHOLD_STEPS) / THRESHOLD_STEPS, NO_THRESHOLD))
            block.neuron.delta.corrected = corrected
        self.learns_threshold = [initial > 0 for initial in thresholds[:-1]]
        self.initialise_shapes()

    @torch.no_grad()
    def initialise_shapes(self) -> None:
        """Let every block learn its shape, and compute its normalised weights, from one black frame."""
        height, width, channels = FRAME_SHAPE
        self.eval()
        for _ in self.messages(torch.zeros(1, channels, height, width, 1)):
            pass
        self.train()

    @property
    def layers(self) -> list[Any]:
        """The blocks of layer-0 to layer-8: all but the one that only flattens."""
        return [block for block in self.blocks if hasattr(block, "neuron")]

    @property
    def thresholds(self) -> Tensor:
        """(8,) of layer-0 to layer-7, differentiable."""
        return torch.cat([block.neuron.delta.threshold for block in self.layers[:-1]])

    def trainable_parameters(self) -> list[torch.nn.Parameter]:
        """What training changes. Neurons have a bias that lava-dl does not use; the readout sends no events."""
        fixed = [block.neuron.bias for block in self.layers]
        learns = [*self.learns_threshold, False]
        fixed += [b.neuron.delta.threshold for b, learned in zip(self.layers, learns, strict=True) if not learned]
        return [p for p in self.parameters() if not any(p is other for other in fixed)]

    @torch.no_grad()
    def start_from(self, pretrained: dict[str, Tensor]) -> None:
        """Take over weights and batch-norm means, not thresholds; the means are frozen from now on.

        Means over the few sequences of a batch are noise that single frames did not have.

        A synapse's weight is g v / |v|, so the length of v changes no output, but how far a step of training turns the
        weight. Pretraining with much weight decay leaves v fifty times shorter than g, and the first steps would
        destroy what it learned. So v gets the length of the weight, as at the start of the pretraining.

        Args:
            pretrained: the state_dict of a network of the same shape.
        """
        own = self.state_dict()
        self.load_state_dict({name: own[name] if "threshold" in name else pretrained[name] for name in own})
        self.initialise_shapes()
        for block in self.layers[1:]:
            block.synapse.weight_v.copy_(block.synapse.weight)
            block.neuron.norm.update = False

    def messages(self, frames: Tensor) -> Iterator[Tensor]:
        """What each layer puts out in turn: the events of layer-0 to layer-7, the angle of layer-8.

        Args:
            frames: (N, 3, 33, 100, T) in [-1, 1].
        """
        x = frames
        for block in self.blocks:
            x = block(x)
            if hasattr(block, "neuron"):
                yield x

    def forward(self, frames: Tensor) -> NetworkOutput:
        messages = list(self.messages(frames))
        return NetworkOutput(
            angles=messages[-1].flatten(1),
            rates=torch.stack([m.abs().mean(dtype=torch.float64).float() for m in messages]),
            events=torch.stack([m[..., 1:].count_nonzero() for m in messages[:-1]]),
        )


def normalise(frames: Tensor) -> Tensor:
    """Packed frames as the blocks take them, bit-equal to torchvision's ToTensor and Normalize(0.5, 0.5).

    Args:
        frames: (N, T, 33, 100, 3) uint8.

    Returns:
        (N, 3, 33, 100, T) float32 in [-1, 1].
    """
    return frames.float().div_(255).sub_(0.5).div_(0.5).permute(0, 4, 2, 3, 1).contiguous()


def tensor_bytes(content: dict[str, Any]) -> bytes:
    """What `torch.load(weights_only=True)` reads; equal content gives equal bytes."""
    buffer = io.BytesIO()  # torch.save writes the name of the file it is given into the file
    torch.save(content, buffer)
    return buffer.getvalue()


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write what `torch.load(weights_only=True)` reads; equal content gives equal bytes under any name."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(tensor_bytes(content))


def read_tensors(path: Path, stage: str) -> dict[str, Tensor]:
    """What `write_tensors` wrote.

    Raises:
        UserError: there is no such file, or it is damaged; the stage makes it.
    """
    check_present(path, stage)
    try:
        with zipfile.ZipFile(path) as file:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist()):
                raise ValueError("it is compressed")  # so it might expand to any size
        content = torch.load(path, weights_only=True, map_location="cpu")
        for name, tensor in content.items():
            if not isinstance(name, str) or not torch.is_tensor(tensor) or not (tensor.abs() < LARGEST_NUMBER).all():
                raise ValueError(f"{name} is no tensor of finite, moderate numbers")
        return content
    except Exception as error:  # damaged bytes make torch's unpickler raise any of a dozen exceptions
        raise damaged(path, error, stage) from None


def load_network(path: Path, stage: str = "calibrate", corrected: bool = False) -> Network:
    """The network that the stage saved at `path`, in evaluation mode.

    Args:
        path: of the file, which does not say whether neurons are corrected.
        stage: named in errors.
        corrected: see `Network`.

    Raises:
        UserError: the file is missing, damaged or of another network.
    """
    network = Network(corrected=corrected)
    weights = read_tensors(path, stage)
    if any(value.dtype != torch.float32 for value in weights.values()):
        raise damaged(path, "its numbers are not all float32", stage)
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise damaged(path, error, stage) from None
    network.initialise_shapes()
    return network.eval()
