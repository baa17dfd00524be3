"""The exported network in integers: what lava computes in its fixed-point simulation of Loihi 2, to the bit.

netx simulates neuron by neuron and time step by time step, with processes that send each other messages.
Here a layer computes all frames at once, except the state of its neurons, which is carried from frame to frame.
This is the definition; `runtime` computes the same frame by frame, event by event.

Numbers are int32 and wrap around like lava's. An input of 1.0 is 64, a message of 1.0 is 2^12, a
weight of 1.0 is 2^6, so a neuron's state of 1.0 is 2^18. Convolutions wrap at 24 bits as well, in the frame
they arrive in; the sums that neurons keep do not, in lava's simulation. (Where a convolution passes 2^31,
which takes activations in the thousands, lava's result is not defined; here it wraps.)
"""

import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pilotnet_sdnn.errors import check_present, damaged
from pilotnet_sdnn.loihi.hdf5 import check_self_contained

STATE_BITS = 6  # of a neuron's state that a message lacks (lava's state_exp)
INPUT_BITS = 12  # from an input, threshold or bias of 1/64 to a neuron's state (spike_exp + state_exp)
ONE = 2**18  # a state of 1.0
MAX_NEURONS = 2**20  # of a layer
EXACT = 2**24  # float32 holds every integer up to it


class Synapses(NamedTuple):
    """What carries the messages of one layer to the next."""

    connect: partial[Tensor]  # float32 messages (N, ...) -> float32 input of the neurons (N, ...)
    largest: int  # input of a neuron per unit of message, at most
    flat: bool  # dense synapses take a vector; their sums do not wrap at 24 bits
    shift: int  # bits by which dense weights are scaled up, and their sums down


class IntegerLayer(NamedTuple):
    """One layer of sigma-delta neurons with the synapses that feed it."""

    shape: tuple[int, ...]  # of its neurons: (C, H, W) or (C,)
    synapses: Synapses | None  # None: the input
    bias: Tensor  # int32, broadcasts to `shape`
    threshold: int | None  # None: the readout, which sends its state


class State(NamedTuple):
    """What the neurons of a layer remember, int32 (S, *shape) for S sequences."""

    sigma: Tensor  # sum of what has arrived
    sent: Tensor  # activation at the last message; of corrected neurons, the sum of all messages


def read_network(path: Path) -> list[IntegerLayer]:
    """The layers of an exported network, the input first.

    Raises:
        UserError: the file is not an exported sigma-delta network of input, convolutional and dense layers.
    """
    check_present(path, "export")
    try:
        with h5py.File(path) as file:
            check_self_contained(file)
            stored = [file["layer"][str(number)] for number in range(len(file["layer"]))]
            layers = [_layer(group) for group in stored if _kind(group) != "flatten"]
        _check_connections(layers)
        return layers
    except Exception as error:  # damaged bytes make h5py raise any of a dozen exceptions
        raise damaged(path, error, "export") from None


def _check_connections(layers: list[IntegerLayer]) -> None:
    """Check with one empty frame that every layer accepts what the one before it sends."""
    messages = torch.zeros(1, 1, *layers[0].shape, dtype=torch.int32)
    for layer in layers[1:]:
        assert layer.synapses
        arriving = _arriving(layer.synapses, messages)
        if arriving.shape[2:] != layer.shape or (arriving + layer.bias).shape != arriving.shape:
            raise ValueError(f"{tuple(arriving.shape[2:])} inputs for {layer.shape} neurons")
        messages = arriving
    if layers[-1].threshold is not None or any(layer.threshold is None for layer in layers[:-1]):
        raise ValueError("the last layer, and only the last, is read out")


def _kind(group: h5py.Group) -> str:
    return np.ravel(group["type"][()])[0].decode()


def _layer(group: h5py.Group) -> IntegerLayer:
    kind, neuron = _kind(group), group["neuron"]
    if kind not in ("input", "conv", "dense") or "delay" in group or neuron["type"][()] != b"SDNN":
        raise ValueError(f"{group.name}: expected an input, conv or dense layer of SDNN neurons without delays")
    shape = tuple(int(size) for size in group["shape"])
    if not 1 <= math.prod(shape) <= MAX_NEURONS or min(shape) < 1:
        raise ValueError(f"{group.name}: its shape is {shape}")
    bias = torch.tensor(_numbers(group["bias"]) if "bias" in group else [0]).to(torch.int32) << INPUT_BITS
    threshold = None if "sigma_output" in neuron else int(_numbers(neuron["vThMant"]) * 2**INPUT_BITS)
    synapses = {"input": lambda _: None, "conv": _convolution, "dense": _dense}[kind](group)
    return IntegerLayer(shape, synapses, bias.reshape(-1, *(1 for _ in shape[1:])), threshold)


def _convolution(group: h5py.Group) -> Synapses:
    weight = _weight(group)
    geometry: dict[str, Any] = {
        name: tuple(int(n) for n in np.broadcast_to(group[name][()], 2)) for name in ("stride", "padding", "dilation")
    }
    connect = partial(F.conv2d, weight=torch.tensor(weight).float(), groups=int(group["groups"][()]), **geometry)
    return Synapses(connect, _largest(weight), flat=False, shift=0)


def _dense(group: h5py.Group) -> Synapses:
    weight, shift = _as_loihi_stores_it(_weight(group))
    connect = partial(F.linear, weight=torch.tensor(weight).float())
    return Synapses(connect, _largest(weight), flat=True, shift=shift)


def _numbers(stored: h5py.Dataset) -> np.ndarray:
    numbers = np.asarray(stored[()])
    if numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
        raise ValueError(f"{stored.name}: expected finite numbers")
    return numbers


def _weight(group: h5py.Group) -> np.ndarray:
    weight = _numbers(group["weight"]).astype(int)
    if weight.min() < -256 or weight.max() > 254:
        raise ValueError(f"{group.name}: expected weights from -256 to 254, found {weight.min()} to {weight.max()}")
    return weight


def _largest(weight: np.ndarray) -> int:
    return int(np.abs(weight).reshape(len(weight), -1).sum(1).max())


def _wrap_to_24_bits(sums: Tensor) -> Tensor:
    return ((sums + 2**23) & (2**24 - 1)) - 2**23


def _as_loihi_stores_it(weight: np.ndarray) -> tuple[np.ndarray, int]:
    """Dense weights in Loihi's eight bits and sign, and by how many bits they are shifted up to fill them.

    This is lossless with one exception. In a layer without positive weights, a lowest weight that is a power of
    two would become -256, which lava-nc cannot store: it comes out one step smaller.
    """
    low, high = int(weight.min()), int(weight.max())
    if low == high == 0:
        return weight, 0
    room = 256 / -low if low < 0 else np.inf
    if high > 0:
        room = min(room, (254 if low < 0 else 255) / high)
    shift = math.floor(math.log2(room))
    stored = weight << shift
    if high <= 0:
        common = int(np.gcd.reduce(stored, axis=None))
        step = (common & -common) >> (high == 0)
        stored = -(np.minimum(-stored, 255) // step * step)
    return stored, shift


def encode(frames: np.ndarray) -> Tensor:
    """Packed frames as the input layer takes them: normalised and rounded to 1/32, as lava-dl's input block does.

    Args:
        frames: (S, T, H, W, C) uint8.

    Returns:
        (S, T, C, H, W) int32, 64 for white and -64 for black.
    """
    table = np.round((np.arange(256) / 255 - 0.5) / 0.5 * 32).astype(np.int32) * 2
    return torch.from_numpy(table[frames]).movedim(-1, 2)


def zero_state(network: list[IntegerLayer], sequences: int) -> list[State]:
    """Neurons that have received and sent nothing, as at the start of a sequence in the floating-point network."""
    return [State(*torch.zeros(2, sequences, *layer.shape, dtype=torch.int32)) for layer in network]


def start_state(network: list[IntegerLayer], sequences: int, corrected: bool = False) -> list[State]:
    """The state of the hardware when the first frame arrives.

    A message takes a time step to the next layer, so layer n has run n steps before the first frame
    reaches it, on what the biases of the layers before it have sent. For `corrected`, see `run`.
    """
    states = []
    messages = torch.zeros(1, 0, *network[0].shape, dtype=torch.int32)
    for layer, state in zip(network, zero_state(network, 1), strict=True):
        if layer.synapses:
            arriving = _arriving(layer.synapses, messages)
            nothing_first = torch.cat([torch.zeros_like(state.sigma[None]), arriving], 1)
            messages, state = _fire(layer, nothing_first, state, corrected)
        states.append(State(*(memory.expand(sequences, *layer.shape) for memory in state)))
    return states


def run(
    network: list[IntegerLayer], inputs: Tensor, states: list[State], corrected: bool = False
) -> tuple[list[Tensor], list[State]]:
    """Run S sequences of T frames from the given state of the layers.

    Args:
        network: from `read_network`.
        inputs: (S, T, C, H, W) int32 from `encode`.
        states: from `start_state`, or what the frames before have left.
        corrected: neurons remember what they have sent, as later versions of lava do. In lava-nc 0.10 they
            remember their activation, although a message drops its lowest six bits and so rounds down:
            with every message, receivers fall a little further behind.

    Returns:
        what each layer sent, int32 (S, T, *shape), with each layer's messages at the frame they answer; that
        of the last layer is its state, `ONE` a radian. Then the states after the last frame.
    """
    messages, sent, left = inputs, [], []
    for layer, state in zip(network, states, strict=True):
        arriving = messages << INPUT_BITS if layer.synapses is None else _arriving(layer.synapses, messages)
        messages, state = _fire(layer, arriving, state, corrected)
        sent.append(messages)
        left.append(state)
    return sent, left


def _arriving(synapses: Synapses, messages: Tensor) -> Tensor:
    """What messages (S, T, ...) bring to the next layer's neurons in each frame."""
    each = messages.flatten(0, 1)
    sums = _sums(synapses, each.flatten(1) if synapses.flat else each)
    arriving = sums >> synapses.shift if synapses.flat else _wrap_to_24_bits(sums)
    return arriving.unflatten(0, messages.shape[:2])


def _sums(synapses: Synapses, messages: Tensor) -> Tensor:
    """Weighted sums in int32, by float32 arithmetic that holds them exactly.

    Large messages are split into high and low bits, which are summed apart and then joined.
    """
    low, high = map(int, messages.aminmax()) if messages.numel() else (0, 0)
    if max(-low, high) * synapses.largest <= EXACT:
        return synapses.connect(messages.float()).int()
    bits = (EXACT // synapses.largest).bit_length() - 1
    return (_sums(synapses, messages >> bits) << bits) + _sums(synapses, messages & (2**bits - 1))


def _fire(layer: IntegerLayer, arriving: Tensor, state: State, corrected: bool = False) -> tuple[Tensor, State]:
    """Take in what arrives, (S, T, ...), frame by frame, and send what has changed enough."""
    if layer.synapses is None:
        activation, last = arriving, state.sigma
    else:
        sigma = arriving.cumsum(1, dtype=torch.int32).add_(state.sigma[:, None])
        last = sigma[:, -1].clone()
        activation = sigma if layer.threshold is None else sigma.add_(layer.bias).clamp_(min=0)
    if layer.threshold is None:
        return activation, State(last, state.sent)
    sent = state.sent.clone()
    for change in activation.unbind(1):  # in place: activations become messages
        change -= sent
        change *= change.abs() >= layer.threshold
        sent += change & -(2**STATE_BITS) if corrected else change
    return activation >> STATE_BITS, State(last, sent)
