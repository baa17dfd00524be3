"""What is counted: events, synaptic operations and MACs, exactly and as lava-dl's tutorial counts them.

An event is a non-zero message, of either sign. A synaptic operation is one event arriving at one
synapse: an event costs as many as its neuron has outgoing synapses, which at the borders of an image
are fewer. A MAC is one product of the ordinary network of the same shape, products with padding
included, because it computes them. Layers count what arrives: layer-1's synaptic operations are those
of layer-0's events.
"""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pilotnet_sdnn.sdnn.geometry import LayerGeometry, fan_out, layer_geometries
from pilotnet_sdnn.sdnn.network import Network, normalise


class Activity(NamedTuple):
    """What a network did in S sequences of T frames."""

    angles: np.ndarray  # (S, T) float32, predicted, radians
    events: np.ndarray  # (S, T, 8) int64, sent by layer-0 to layer-7; layer-8 is read out, it sends none
    positive: np.ndarray  # (S, T, 9) int64, messages > 0 of layer-0 to layer-8, which the tutorial counts
    synops: np.ndarray  # (S, T, 8) int64, synaptic operations in layer-1 to layer-8


@torch.no_grad()
def count_activity(network: Network, frames: Tensor) -> Activity:
    """Run S sequences, (S, T, 33, 100, 3) uint8, through lava-dl's own blocks and count, frame by frame."""
    *messages, angles = network.eval().messages(normalise(frames))
    sent = [(message != 0).flatten(1, -2) for message in messages]  # (S, neurons, T)
    positive = [(message > 0).flatten(1, -2) for message in (*messages, angles)]
    synapses = [fan_out(source, target).double().flatten() for source, target in pairwise(layer_geometries(network))]
    return Activity(
        angles=angles.flatten(1).numpy(),
        events=_by_frame([s.sum(1) for s in sent]),
        positive=_by_frame([p.sum(1) for p in positive]),
        synops=_by_frame(
            [torch.einsum("snt,n->st", s.double(), f).long() for s, f in zip(sent, synapses, strict=True)]
        ),
    )


def _by_frame(layer_counts: list[Tensor]) -> np.ndarray:
    return torch.stack(layer_counts, -1).numpy()


def after_first_frame(counts: np.ndarray) -> np.ndarray:
    """Mean per frame of each layer's counts (S, T, layers), first frames of sequences left out.

    The first frame is sent whole, as the difference from black, which a running camera does once.
    """
    return counts[:, 1:].mean((0, 1))


class Energy(NamedTuple):
    """Picojoules of one operation."""

    mac: float  # a multiplication and an addition: a MAC of the ordinary network, a synaptic operation
    add: float  # an addition: what neurons update their state with


UPDATE_ADDITIONS = 4  # of a sigma-delta neuron in a frame: sigma, change, residual, comparison with the threshold


def operations(
    geometry: list[LayerGeometry], events: np.ndarray, synops: np.ndarray, macs: np.ndarray, energy: Energy
) -> dict:
    """The comparison with the ordinary network, per layer and in total.

    `events` and `synops` are means over the frames after the first of each sequence. Their 95th
    percentile (`_p95`) and worst (`_worst`) of these frames follow, for which hardware is sized, and the
    mean of the first frames (`_first`), which carry the whole image. A total's percentile is that of the
    frames' totals, not the sum of the layers'.

    Args:
        geometry: of the nine layers.
        events: (S, T, 9) in each frame, of the readout too where it is counted.
        synops: (S, T, 8) in each frame, in layer-1 to layer-8.
        macs: (8,) in every frame, in layer-1 to layer-8.
        energy: of an operation.
    """
    synops = np.concatenate([np.zeros_like(synops[..., :1]), synops], -1)
    all_macs = np.append(0, macs)
    table = {
        layer.name: {
            **_distribution("events", events[..., i]),
            **_distribution("synops", synops[..., i]),
            "activations": layer.neurons,
            "macs": int(all_macs[i]),
        }
        for i, layer in enumerate(geometry)
    }
    neurons = sum(layer.neurons for layer in geometry)
    total_events, total_synops = _distribution("events", events.sum(-1)), _distribution("synops", synops.sum(-1))
    return {
        "events_sparsity": _ratio(neurons, total_events["events"]),
        "synops_sparsity": _ratio(macs.sum(), total_synops["synops"]),
        "synops_per_frame": total_synops["synops"],
        "macs_per_frame": int(macs.sum()),
        "neurons": neurons,
        "total": {**total_events, **total_synops},
        "energy_microjoules": energies(total_synops, neurons, int(macs.sum()), energy),
        "layers": table,
    }


def _distribution(name: str, counts: np.ndarray) -> dict[str, float]:
    """Of counts (S, T)."""
    later = counts[:, 1:]
    return {
        name: float(later.mean()),
        f"{name}_p95": float(np.percentile(later, 95)),
        f"{name}_worst": float(later.max()),
        f"{name}_first": float(counts[:, 0].mean()),
    }


def energies(synops: dict[str, float], neurons: int, macs: int, energy: Energy) -> dict[str, float]:
    """Estimated energy of the arithmetic in one frame, microjoules; moving data in memory is not in it.

    Every event is a number, so a synaptic operation multiplies and adds, as a MAC does. The sigma-delta
    network also updates every neuron in every frame; the ordinary network's activations cost it nothing.
    """
    update = UPDATE_ADDITIONS * neurons * energy.add
    sdnn, worst, first = (
        (synops[name] * energy.mac + update) / 1e6 for name in ("synops", "synops_worst", "synops_first")
    )
    ann = macs * energy.mac / 1e6
    return {"sdnn": sdnn, "sdnn_worst": worst, "sdnn_first": first, "ann": ann, "ratio": ann / sdnn}


def _ratio(dense: float, sparse: float) -> float:
    """How many times less; infinite for a network that sends nothing at all."""
    return float(dense / sparse) if sparse else math.inf


def exact_operations(geometry: list[LayerGeometry], activity: Activity, energy: Energy) -> dict:
    """`operations` with true counts: events of either sign, true fan-outs, exact MACs."""
    events = np.concatenate([activity.events, np.zeros_like(activity.events[..., :1])], -1)
    macs = np.array([layer.macs for layer in geometry[1:]])
    return operations(geometry, events, activity.synops, macs, energy)


def published_operations(geometry: list[LayerGeometry], activity: Activity, energy: Energy) -> dict:
    """`operations` as the tutorial's table has them.

    It counts positive messages only, those of the readout too, and multiplies each by
    channels * kernel / stride of the layer it goes to, borders and padding ignored; its MACs are what
    this gives where every neuron sends.
    """
    fan_outs = np.array([_published_fan_out(layer.synapse) for layer in geometry[1:]])
    neurons = np.array([layer.neurons for layer in geometry[:-1]])
    return operations(geometry, activity.positive, activity.positive[..., :-1] * fan_outs, neurons * fan_outs, energy)


def _published_fan_out(synapse: Any) -> float:
    return synapse.out_channels * np.prod(synapse.kernel_size) / np.prod(synapse.stride)


def operations_report(geometry: list[LayerGeometry], exact: dict, published: dict, title: str) -> str:
    """Both comparisons as the tutorial prints its own, in markdown that reads as text."""
    return (
        f"{title}\n\n"
        "Per frame, the first of each sequence left out. Events and synops: the\n"
        "sigma-delta network. Activations and MACs: an ordinary network of its shape.\n\n"
        f"Counted exactly\n\n{_table(geometry, exact)}\n"
        f"As published: positive messages only, borders and padding ignored\n\n{_table(geometry, published)}\n"
        "The same frames' 95th percentile and worst, and the mean of the first frames,\n"
        f"which carry the whole image; counted exactly\n\n{_spread_table(exact)}\n"
        f"{_energy_lines(exact, published)}"
    )


def _table(geometry: list[LayerGeometry], comparison: dict) -> str:
    rows = [
        "|  Layer  |     Shape     |  Events  |    Synops    | Activations|    MACs    |",
        "|---------|---------------|---------:|-------------:|-----------:|-----------:|",
    ]
    for layer in geometry:
        channels, height, width = layer.shape
        counts = comparison["layers"][layer.name]
        synops, macs = ("", "") if layer.synapse is None else (f"{counts['synops']:.2f}", counts["macs"])
        rows.append(
            f"| {layer.name} | ({width:3d},{height:3d},{channels:3d}) | {counts['events']:8.2f} | {synops:>12} "
            f"| {counts['activations']:10d} | {macs:>10} |"
        )
    events = sum(counts["events"] for counts in comparison["layers"].values())
    rows.append(
        f"|  Total  | {'':13} | {events:8.2f} | {comparison['synops_per_frame']:12.2f} "
        f"| {comparison['neurons']:10d} | {comparison['macs_per_frame']:>10} |"
    )
    sums = "Events sparsity: {events_sparsity:.2f}x, synops sparsity: {synops_sparsity:.2f}x, neurons: {neurons}\n"
    return "\n".join(rows) + "\n\n" + sums.format(**comparison)


def _spread_table(comparison: dict) -> str:
    rows = [
        "|  Layer  | Events p95 |  worst |  first | Synops p95 |   worst |   first |",
        "|---------|-----------:|-------:|-------:|-----------:|--------:|--------:|",
    ]
    for name, counts in [*comparison["layers"].items(), ("Total", comparison["total"])]:
        row = (
            "| {name:^7} | {events_p95:10.0f} | {events_worst:6.0f} | {events_first:6.0f} "
            "| {synops_p95:10.0f} | {synops_worst:7.0f} | {synops_first:7.0f} |"
        )
        rows.append(row.format(name=name, **counts))
    return "\n".join(rows) + "\n"


def _energy_lines(exact: dict, published: dict) -> str:
    line = "{sdnn:.3f} microjoules a frame (worst {sdnn_worst:.3f}) against {ann:.3f}: {ratio:.1f}x\n"
    return (
        "Energy of the arithmetic, estimated, memory not included\n\n"
        f"exact: {line.format(**exact['energy_microjoules'])}"
        f"as published: {line.format(**published['energy_microjoules'])}"
    )
