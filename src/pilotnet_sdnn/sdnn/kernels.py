"""The fast path: what `network.Network` computes, at the price of an ordinary network.

It computes on lava-dl's own modules and parameters, so training, checkpoints and export are the same;
only the way through them differs. The frames of all sequences are one batch of channels-last images,
so a synapse is one `conv2d`, and each layer's sigma, norm, relu, delta unit, quantisation, dropout,
rate and event count are one pass over memory, whose backward pass recomputes instead of storing.

There are two versions. `torch` is the definition: pure torch, on any device. `native` equals it bit
for bit and is several times faster: a C++ source, compiled once per machine by the compiler found
there. Its convolutions skip what is not an event, forward and in the gradient of the weights, and neurons
at rest in the gradient of the events.
The technique was chosen by measurement: on one AVX2 core the neurons of one training iteration take
numba 36 ms and C++ 15 to 19 ms, and numba compiles for 8 s at first and cannot share torch's threads.
A plain call of the compiler takes 2 s, torch's extension builder, with torch's headers, 40 s. The
OpenMP threads are torch's own, for both are of the one libgomp in the process.

Events and weights are multiples of 2^-12 and 2^-5, so sums of their products are exact in float32 in
any order, at these magnitudes. Inexact in lava-dl are the batch means: ours are rounded once, lava-dl's
differ in last bits, and where one lies that close to a boundary of its quantisation (about one channel
mean in a million) the quantised means differ by one step. On a GPU sums are exact without TF32 only.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.utils.weight_norm import WeightNorm

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.paths import user_cache
from pilotnet_sdnn.sdnn.lava import slayer
from pilotnet_sdnn.sdnn.network import Network, NetworkOutput, normalise

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = [
    "-std=c++17", "-O3", "-shared", "-fPIC",
    "-fno-math-errno", "-fno-trapping-math",  # or loops with comparisons and roundings are not vectorised
    "-ffp-contract=fast",  # see kernels.cpp for why results stay exact
    "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native",
    *(["-Xclang", "-fopenmp", "-undefined", "dynamic_lookup"] if platform.system() == "Darwin" else ["-fopenmp"]),
]  # fmt: skip

MAX_CHANNELS = 64  # that the C++ convolutions take, on either side
SMALL = 1 << 15  # messages of a layer that one thread has done before another one has woken up
FEW = 0.2  # share of events in all messages below which skipping the others pays

sdnn = slayer.block.sigma_delta
Fired = tuple[Tensor, Tensor, Tensor]  # what a layer puts out: messages, mean magnitude, number of events


def choose(kind: str, device: torch.device) -> str:
    """The kernels to use, "native" or "torch", where "auto" is asked for or one of them.

    Raises:
        UserError: "native" is asked for and not possible here.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # 10 bits of mantissa do not hold the sums
    if kind == "torch":
        logger.info("kernels: torch, as asked for")
        return "torch"
    try:
        if device.type != "cpu":
            raise RuntimeError(f"they run on the CPU, not on {device.type}")
        library()
    except (OSError, RuntimeError) as obstacle:
        if kind == "native":
            raise UserError(
                f"params.yaml: kernels: native is not possible here: {obstacle}; set auto or torch"
            ) from None
        logger.warning("kernels: torch, which is slower; no native ones: %s", obstacle)
        return "torch"
    logger.info("kernels: native, %d threads", torch.get_num_threads())
    return "native"


def run(network: Network, frames: Tensor, kernels: str) -> NetworkOutput:
    """The outcome of `network(normalise(frames))`, the same bits, differentiable.

    Args:
        network: in training or evaluation mode; its batch norms' running means are kept up to date.
        frames: uint8 (N, T, 33, 100, 3).
        kernels: "native" or "torch", as `choose` gives it.

    Raises:
        NotImplementedError: the network has a feature of lava-dl that is not computed here.
        TypeError: the frames are not bytes.
    """
    refuse_unsupported(network)
    if frames.dtype != torch.uint8:
        raise TypeError(f"kernels: frames are uint8, not {frames.dtype}")
    native = kernels == "native"
    enter, fire, respond = (_enter_native, _fire_native, _respond_native) if native else (_enter, _fire, _respond)
    sequences, length = frames.shape[:2]
    entry, first, *others, readout = network.blocks
    current, *sent = enter(entry, first.synapse, frames)
    sums = [sent]
    messages, *sent = fire(first.neuron, current, length)
    sums.append(sent)
    for block in others:
        if isinstance(block, sdnn.Flatten):
            messages = messages.flatten(1)
        else:
            _, events = sent
            messages, *sent = respond(block, messages, events, length)
            sums.append(sent)
    angles = _weigh(readout.synapse, messages).view(sequences, length).cumsum(1)
    rates, counts = zip(*sums, strict=True)
    return NetworkOutput(angles, torch.stack([*rates, mean_magnitude(angles)]), torch.stack(counts))


def refuse_unsupported(network: Network) -> None:
    """Raise NotImplementedError, by name, for what the blocks can do and is not computed here."""
    kinds = [type(block) for block in network.blocks]
    if kinds[:2] != [sdnn.Input, sdnn.Conv] or kinds[-1] != sdnn.Output:
        raise NotImplementedError("kernels: the blocks are not Input, Conv, ..., Output")
    for position, block in enumerate(network.blocks):
        for feature in _unsupported_features(block):
            raise NotImplementedError(f"kernels: block {position} has {feature}, which only lava-dl itself computes")


def _unsupported_features(block: Any) -> Iterator[str]:
    if type(block) not in (sdnn.Input, sdnn.Conv, sdnn.Flatten, sdnn.Dense, sdnn.Output):
        yield f"type {type(block).__name__}"
        return
    if block.count_log:
        yield "count_log"
    if isinstance(block, sdnn.Flatten):
        return
    if block.delay is not None or block.delay_shift:
        yield "delay"
    neuron = block.neuron
    if neuron.persistent_state:
        yield "persistent_state"
    if neuron.delta.cum_error:
        yield "cum_error"
    if not neuron.shared_param:
        yield "thresholds that are not shared"
    if neuron.activation is not F.relu:
        yield f"activation {neuron.activation}"
    if neuron.bias_is_set:
        yield "bias"
    if neuron.norm is not None:
        if type(neuron.norm) is not slayer.neuron.norm.MeanOnlyBatchNorm:
            yield f"norm {type(neuron.norm).__name__}"
        elif neuron.norm.pre_hook_fx != neuron.quantize_8bit:
            yield "norm pre_hook_fx"
    if neuron.drop is not None and (type(neuron.drop) is not slayer.neuron.Dropout or isinstance(block, sdnn.Conv)):
        yield f"dropout {type(neuron.drop).__name__}"
    if isinstance(block, sdnn.Input):
        if block.weight is not None or block.bias is not None:
            yield "an affine input"
        if block.pre_hook_fx != neuron.quantize_8bit:
            yield "pre_hook_fx"
    else:
        if block.synapse.pre_hook_fx != neuron.quantize_8bit:
            yield "synapse pre_hook_fx"
        if not all(isinstance(hook, WeightNorm) for hook in block.synapse._forward_pre_hooks.values()):
            yield "a forward hook"


# What both versions share


def quantised_weight(synapse: Any) -> Tensor:
    """Channels-last (out, in, height, width). Brings `synapse.weight` up to date, as export needs it."""
    for weight_norm in synapse._forward_pre_hooks.values():
        weight_norm(synapse, None)
    return synapse.pre_hook_fx(synapse.weight).squeeze(-1).contiguous(memory_format=torch.channels_last)


def geometry(synapse: Any) -> tuple[Any, ...]:
    """Stride, padding, dilation and groups for a convolution in the plane: lava-dl's are in space and time."""
    return synapse.stride[:2], synapse.padding[:2], synapse.dilation[:2], synapse.groups


def mean_magnitude(messages: Tensor) -> Tensor:
    """A layer's rate. In float64 the sum is exact, so it is the same in any order."""
    return messages.abs().mean(dtype=torch.float64).float()


def norm_mean(norm: Any, batch_mean: Callable[[], Tensor]) -> Tensor:
    """The mean that `MeanOnlyBatchNorm.forward` takes off, its running mean updated in training."""
    if not (norm.training and norm.update):
        return norm.running_mean
    mean = batch_mean()
    with torch.no_grad():
        norm.running_mean = (1 - norm.momentum) * norm.running_mean + norm.momentum * mean
    return mean


def dropout_gain(neuron: Any, sequences: int, features: int) -> Tensor | None:
    """What dropout multiplies each neuron's messages by, (N, features), drawn as lava-dl draws it; None without it."""
    if neuron.drop is None or not neuron.drop.training:
        return None
    return neuron.drop(torch.ones(sequences, features, 1, device=neuron.device)).squeeze(-1)


# The definition, in pure torch


def _enter(entry: Any, synapse: Any, frames: Tensor) -> Fired:
    """The Input block and the first synapse: (N * T, ...) current, rate, events."""
    values = entry.pre_hook_fx(normalise(frames)).permute(0, 4, 1, 2, 3)
    events, rate, count = _send(values, entry.neuron.delta, None)
    return _weigh(synapse, events.contiguous(memory_format=torch.channels_last)), rate, count


def _respond(block: Any, messages: Tensor, events: Tensor, length: int) -> Fired:
    """A synapse and the neurons behind it, whatever the number of events."""
    return _fire(block.neuron, _weigh(block.synapse, messages), length)


def _weigh(synapse: Any, messages: Tensor) -> Tensor:
    """The current that messages (N * T, ...) bring to the neurons behind a synapse."""
    weight = quantised_weight(synapse)
    if messages.dim() == 2:
        return F.linear(messages, weight.flatten(1))
    return F.conv2d(messages, weight, None, *geometry(synapse))


def _fire(neuron: Any, current: Tensor, length: int) -> Fired:
    """What sigma-delta neurons send on (N * T, ...) current: (N * T, ...) messages, rate, events."""
    dendrite = current.unflatten(0, (-1, length)).cumsum(1)
    if neuron.norm is not None:
        everything_but_channels = [d for d in range(dendrite.dim()) if d != 2]
        mean = norm_mean(neuron.norm, lambda: dendrite.mean(everything_but_channels, dtype=torch.float64).float())
        dendrite = dendrite - neuron.norm.pre_hook_fx(mean).view(-1, *(1 for _ in dendrite.shape[3:]))
    gain = dropout_gain(neuron, len(dendrite), dendrite.shape[2])
    return _send(F.relu(dendrite), neuron.delta, gain)


def _send(activations: Tensor, delta: Any, gain: Tensor | None) -> Fired:
    """The events of (N, T, ...) activations, as (N * T, ...) messages."""
    delta.clamp()
    messages = _DeltaUnit.apply(activations, delta.threshold, delta)
    if gain is not None:
        messages = messages * gain.unsqueeze(1)
    return messages.flatten(0, 1), mean_magnitude(messages), messages[:, 1:].count_nonzero()


class _DeltaUnit(torch.autograd.Function):
    """lava-dl's `_DeltaUnit` and the quantisation of its output, time in dimension 1."""

    @staticmethod
    def forward(ctx: Any, activations: Tensor, threshold: Tensor, delta: Any) -> Tensor:
        differences = _scan(activations.device.type)(activations, threshold)
        ctx.save_for_backward(differences, threshold)
        ctx.delta = delta
        events = torch.where(differences.abs() >= threshold, differences, 0)
        return torch.floor(events * delta.scale) / delta.scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        differences, threshold = ctx.saved_tensors
        above = differences.abs() - threshold
        spike = ctx.delta.scale_grad * torch.exp(-above.abs() / ctx.delta.tau_grad)
        sensitivity = torch.where(above > 0, -differences * spike / threshold, -differences.sign())
        later = torch.cat([gradient[:, 1:], torch.zeros_like(gradient[:, :1])], 1)
        return gradient - later, (sensitivity * gradient).sum().view(1), None


def _differences(activations: Tensor, threshold: Tensor) -> Tensor:
    """What is compared with the threshold: d[t] = x[t] - x[t-1] + r[t-1], with r[t] = d[t] where that is below it."""
    differences = []
    previous = residual = torch.zeros_like(activations[:, 0])
    for activation in activations.unbind(1):
        difference = activation - previous + residual
        residual = torch.where(difference.abs() >= threshold, 0, difference)
        previous = activation
        differences.append(difference)
    return torch.stack(differences, 1)


@functools.cache
def _scan(device: str) -> Callable[[Tensor, Tensor], Tensor]:
    """`_differences`; on a GPU compiled to one kernel, of any shape, instead of five small ones for each frame."""
    return torch.compile(_differences, dynamic=True) if device == "cuda" else _differences


# The native version


class Layer(ctypes.Structure):
    """`Layer` of kernels.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("sequences", "frames", "neurons", "channels")),
        *((name, ctypes.c_float) for name in ("threshold", "tau_grad", "scale_grad", "scale")),
        *((name, ctypes.c_int32) for name in ("has_dendrite", "threads")),
    )


def _describe(images: Tensor, delta: Any, length: int, has_dendrite: bool) -> Layer:
    frames, channels = images.shape[:2]
    threads = torch.get_num_threads() if images.numel() > SMALL else 1
    delta.clamp()
    return Layer(
        frames // length, length, images.numel() // frames, channels,
        delta.threshold.item(), delta.tau_grad, delta.scale_grad, delta.scale,
        has_dendrite, threads,
    )  # fmt: skip


def _enter_native(entry: Any, synapse: Any, frames: Tensor) -> Fired:
    table = entry.pre_hook_fx(normalise(torch.arange(256, dtype=torch.uint8).view(1, 1, 1, -1, 1))).flatten()
    sequences, length, height, width, channels = frames.shape
    values = torch.empty(sequences * length, channels, height, width, memory_format=torch.channels_last)
    frames = frames.contiguous()
    library().look_up(_at(frames), _at(table), ctypes.c_int64(frames.numel()), torch.get_num_threads(), _at(values))
    layer = _describe(values, entry.neuron.delta, length, has_dendrite=False)
    return _Enter.apply(values, entry.neuron.delta.threshold, quantised_weight(synapse), layer, geometry(synapse))


class _Enter(torch.autograd.Function):
    """Delta unit of the Input block, then the first convolution.

    Nothing needs the gradient of the events except their threshold, which has one value. With h the
    events' sensitivity to it, <h, adjoint(gradient)> = <convolution(h), gradient>, and a convolution
    forward from three channels costs a fraction of one back to them.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, threshold: Tensor, weight: Tensor, layer: Layer, geometry: tuple[Any, ...]
    ) -> Fired:
        events, rate, count = _encode(layer, values, None, None)
        ctx.save_for_backward(values, events, weight)
        ctx.layer, ctx.geometry = layer, geometry
        ctx.mark_non_differentiable(count)
        return F.conv2d(events, weight, None, *geometry), rate, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, rate_gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        values, events, weight = ctx.saved_tensors
        gradient = _images(gradient)
        sensitivity = torch.empty_like(values)
        through_rate = library().sensitivities(ctypes.byref(ctx.layer), _at(values), _at(sensitivity))
        current_sensitivity = _images(F.conv2d(sensitivity, weight, None, *ctx.geometry))
        through_synapse = library().inner_product(
            _at(current_sensitivity), _at(gradient), ctypes.c_int64(gradient.numel()), torch.get_num_threads()
        )
        threshold = through_synapse + through_rate * rate_gradient.item() / values.numel()
        _, weight_gradient = _convolution_gradients(gradient, events, weight, ctx.geometry, (False, True, False))
        return None, torch.tensor([threshold], dtype=torch.float32), weight_gradient, None, None


def _convolution_gradients(
    gradient: Tensor, images: Tensor, weight: Tensor, geometry: tuple[Any, ...], wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor]:
    """Of the images and of the weight, as far as wanted."""
    stride, padding, dilation, groups = geometry
    return torch.ops.aten.convolution_backward(
        gradient, images, weight, None, stride, padding, dilation, False, (0, 0), groups, wanted
    )[:2]


class Convolution(ctypes.Structure):
    """`Convolution` of kernels.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "inputs")),
        *((name, ctypes.c_int64) for name in ("out_height", "out_width", "outputs")),
        *((name, ctypes.c_int64) for name in ("kernel_height", "kernel_width", "stride_y", "stride_x")),
        *((name, ctypes.c_int64) for name in ("padding_y", "padding_x")),
        ("threads", ctypes.c_int32),
    )


def _describe_convolution(images: Tensor, synapse: Any) -> Convolution:
    stride, padding, *_ = geometry(synapse)
    number, inputs, height, width = images.shape
    kernel = synapse.weight.shape[2:4]
    out = [
        (size + 2 * pad - reach) // step + 1
        for size, pad, reach, step in zip((height, width), padding, kernel, stride, strict=True)
    ]
    return Convolution(
        number, height, width, inputs, *out, synapse.out_channels, *kernel, *stride, *padding, torch.get_num_threads()
    )


def _respond_native(block: Any, messages: Tensor, events: Tensor, length: int) -> Fired:
    """A synapse and its neurons, skipping what is not an event where events are few and the C++ source can do so."""
    synapse = block.synapse
    channels = max(synapse.in_channels, synapse.out_channels)
    plain = messages.dim() == 4 and synapse.groups == 1 and synapse.dilation[:2] == (1, 1) and channels <= MAX_CHANNELS
    if not plain or events.item() > FEW * messages.numel():
        return _fire_native(block.neuron, _weigh(synapse, messages), length)
    layer = _describe_convolution(messages, synapse)
    return _Respond.apply(
        _images(messages), quantised_weight(synapse), block.neuron.delta.threshold, block.neuron, layer, length
    )


class _Respond(torch.autograd.Function):
    """A convolution and the neurons behind it, skipping zeros: silent neurons before it, resting ones behind it."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, threshold: Tensor, neuron: Any, convolution: Convolution, length: int
    ) -> Fired:
        shape = (len(images), convolution.outputs, convolution.out_height, convolution.out_width)
        current = torch.empty(shape, memory_format=torch.channels_last)
        packed = weight.permute(2, 3, 1, 0).contiguous()
        library().convolve_events(ctypes.byref(convolution), _at(images), _at(packed), _at(current))
        fired = _fire_forward(ctx, current, neuron, None, length, images, weight)
        ctx.convolution = convolution
        return fired

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, rate_gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        through_neurons, shares, threshold = _activation_gradients(ctx, gradient, rate_gradient)
        *_, images, weight = ctx.saved_tensors
        convolution = ctypes.byref(ctx.convolution)
        image_gradient, packed = torch.empty_like(images), weight.permute(2, 3, 0, 1).contiguous()
        library().event_gradients(
            convolution, ctypes.c_int64(ctx.layer.frames), _at(through_neurons), _at(shares), _at(packed),
            _at(image_gradient),
        )  # fmt: skip
        library().current_gradients(ctypes.byref(ctx.layer), _at(shares), _at(through_neurons))
        weight_gradient = torch.empty_like(weight.permute(2, 3, 1, 0), memory_format=torch.contiguous_format)
        library().event_weight_gradient(convolution, _at(images), _at(through_neurons), _at(weight_gradient))
        return image_gradient, _images(weight_gradient.permute(3, 2, 0, 1)), threshold, None, None, None


def _fire_native(neuron: Any, current: Tensor, length: int) -> Fired:
    gain = dropout_gain(neuron, len(current) // length, current.shape[1])
    return _Fire.apply(_images(current), neuron.delta.threshold, neuron, gain, length)


class _Fire(torch.autograd.Function):
    """`_fire` in one pass over memory each way."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, threshold: Tensor, neuron: Any, gain: Tensor | None, length: int) -> Fired:
        return _fire_forward(ctx, current, neuron, gain, length)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, rate_gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        current_gradient, shares, threshold = _activation_gradients(ctx, gradient, rate_gradient)
        library().current_gradients(ctypes.byref(ctx.layer), _at(shares), _at(current_gradient))
        return current_gradient, threshold, None, None, None


def _fire_forward(ctx: Any, current: Tensor, neuron: Any, gain: Tensor | None, length: int, *to_save: Tensor) -> Fired:
    layer = _describe(current, neuron.delta, length, has_dendrite=True)
    mean, mean_passes = _quantised_mean(neuron, layer, current)
    messages, rate, count = _encode(layer, current, mean, gain)
    ctx.save_for_backward(current, mean, mean_passes, gain, *to_save)
    ctx.layer = layer
    ctx.mark_non_differentiable(count)
    return messages, rate, count


def _activation_gradients(ctx: Any, gradient: Tensor, rate_gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the activations, of the channels' means, and of the threshold."""
    current, mean, mean_passes, gain, *_ = ctx.saved_tensors
    gradient = _images(gradient)
    activation_gradient, shares = torch.empty_like(current), torch.empty(ctx.layer.channels)
    slope = ctypes.c_float(rate_gradient.item() / current.numel())
    threshold = library().activation_gradients(
        ctypes.byref(ctx.layer), _at(current), _at(mean), _at(mean_passes), _at(gain), _at(gradient), slope,
        _at(activation_gradient), _at(shares),
    )  # fmt: skip
    return activation_gradient, shares, torch.tensor([threshold], dtype=torch.float32)


def _quantised_mean(neuron: Any, layer: Layer, current: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """What the norm takes off each channel, and 1.0 or 0.0 as its gradient passes the clamping or not.

    None stands for no norm, and for a mean that is constant.
    """
    norm = neuron.norm
    if norm is None:
        return None, None

    def batch_mean() -> Tensor:
        means = torch.empty(layer.channels)
        library().dendrite_means(ctypes.byref(layer), _at(current), _at(means))
        return means

    mean = norm_mean(norm, batch_mean)
    quantised = norm.pre_hook_fx(mean)
    if not (norm.training and norm.update):
        return quantised, None
    return quantised, (quantised == slayer.utils.quantize(mean, step=2 / neuron.w_scale)).float()


def _encode(layer: Layer, current: Tensor, mean: Tensor | None, gain: Tensor | None) -> Fired:
    messages = torch.empty_like(current)
    sums = (ctypes.c_double * 2)()
    library().encode(ctypes.byref(layer), _at(current), _at(mean), _at(gain), _at(messages), sums)
    magnitude, count = sums
    return messages, torch.tensor(magnitude / current.numel(), dtype=torch.float32), torch.tensor(int(count))


def _images(tensor: Tensor) -> Tensor:
    """The tensor as the native version takes it: channels last in memory."""
    return tensor.contiguous(memory_format=torch.channels_last if tensor.dim() == 4 else torch.contiguous_format)


def _at(tensor: Tensor | None) -> ctypes.c_void_p | None:
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernels.cpp, compiled now if this machine has not done so before.

    It is kept in the user's cache folder, by what it depends on: source, flags, compiler and CPU.

    Raises:
        RuntimeError: there is no compiler, or it fails.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        raise RuntimeError("there is no C++ compiler (Debian: apt install g++; macOS: xcode-select --install)")
    command = [compiler, *FLAGS]
    target = _output([*command, "-dM", "-E", "-x", "c++", os.devnull])  # names the compiler and the CPU's instructions
    key = hashlib.sha256("\n".join([*command, target, SOURCE.read_text()]).encode()).hexdigest()
    cache = user_cache()
    binary = cache / f"kernels-{key[:16]}.so"
    if not binary.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            fresh = Path(scratch) / binary.name
            _output([*command, str(SOURCE), "-o", str(fresh)])
            fresh.replace(binary)  # at once: another process may be compiling it too
        logger.info("kernels: compiled %s", binary)
    loaded = ctypes.CDLL(str(binary))
    for returns_number in (loaded.activation_gradients, loaded.sensitivities, loaded.inner_product):
        returns_number.restype = ctypes.c_double
    loaded.keep_freed_memory()
    return loaded


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} fails: {' '.join(done.stderr.split())}")
    return done.stdout
