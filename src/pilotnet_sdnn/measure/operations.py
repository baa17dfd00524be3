"""Operations of the sigma-delta network beside those of the ANN baseline, exact and as lava-dl's tutorial counts them.

A MAC is one product of the ANN baseline of the same shape, products with padding included, because it computes them.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from pilotnet_sdnn.measure.activity import Activity
from pilotnet_sdnn.sdnn.geometry import LayerGeometry


class Energy(NamedTuple):
    """Picojoules of one operation."""

    mac: float  # a multiplication and an addition: a MAC of the ANN baseline, a synaptic operation
    add: float  # an addition: what neurons update their state with


UPDATE_ADDITIONS = 4  # of a sigma-delta neuron in a frame: sigma, change, residual, comparison with the threshold


class Counts(NamedTuple):
    """Events and synaptic operations of F frames, by layer."""

    events: np.ndarray  # (F, 9) of layer-0 to layer-8, of the readout too where it is counted
    synops: np.ndarray  # (F, 8) in layer-1 to layer-8
    is_start: np.ndarray  # (F,) bool, the frames seen from rest, which are sent whole
    is_counted: np.ndarray  # (F,) bool


def operations(geometry: list[LayerGeometry], counts: Counts, macs: np.ndarray, energy: Energy) -> dict:
    """The comparison with the ANN baseline, per layer and in total.

    `events` and `synops` are means over the counted frames. Hardware is sized for their 95th percentile (`_p95`) and
    worst frame (`_worst`). `_first` is the mean of the frames seen from rest, which are sent whole. A total's
    percentile is that of the frames' totals, not the sum of the layers'.

    Args:
        geometry: of the nine layers.
        counts: of every frame.
        macs: (8,) in every frame, in layer-1 to layer-8.
        energy: of an operation.
    """
    events, synops = counts.events, np.pad(counts.synops, ((0, 0), (1, 0)))
    all_macs = np.append(0, macs)
    table = {
        layer.name: {
            **_distribution("events", events[:, i], counts),
            **_distribution("synops", synops[:, i], counts),
            "activations": layer.neurons,
            "macs": int(all_macs[i]),
        }
        for i, layer in enumerate(geometry)
    }
    neurons = sum(layer.neurons for layer in geometry)
    total_events = _distribution("events", events.sum(-1), counts)
    total_synops = _distribution("synops", synops.sum(-1), counts)
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


def _distribution(name: str, values: np.ndarray, counts: Counts) -> dict[str, float]:
    """Of values (F,)."""
    counted = values[counts.is_counted]
    return {
        name: float(counted.mean()),
        f"{name}_p95": float(np.percentile(counted, 95)),
        f"{name}_worst": float(counted.max()),
        f"{name}_first": float(values[counts.is_start].mean()),
    }


def energies(synops: dict[str, float], neurons: int, macs: int, energy: Energy) -> dict[str, float]:
    """Estimated energy of the arithmetic in one frame, microjoules; moving data in memory is not in it.

    Every event is a number, so a synaptic operation multiplies and adds, as a MAC does. The sigma-delta
    network also updates every neuron in every frame; the ANN baseline's activations cost nothing.
    """
    update = UPDATE_ADDITIONS * neurons * energy.add
    sdnn, worst, first = (
        (synops[name] * energy.mac + update) / 1e6 for name in ("synops", "synops_worst", "synops_first")
    )
    ann = macs * energy.mac / 1e6
    return {"sdnn": sdnn, "sdnn_worst": worst, "sdnn_first": first, "ann": ann, "ratio": ann / sdnn}


def _ratio(dense: float, sparse: float) -> float:
    """The factor between the two; infinite for a network that sends nothing at all."""
    return float(dense / sparse) if sparse else math.inf


def exact_operations(
    geometry: list[LayerGeometry], activity: Activity, energy: Energy, starts_count: bool = True
) -> dict:
    """`operations` with true counts: events of either sign, true fan-outs, exact MACs.

    Args:
        geometry: of the nine layers.
        activity: of streams or of sequences.
        energy: of an operation.
        starts_count: whether the means include the frames seen from rest; the tutorial's protocol leaves them out.
    """
    events = np.pad(activity.events, ((0, 0), (0, 1)))
    counts = Counts(events, activity.synops, activity.is_start, starts_count | ~activity.is_start)
    return operations(geometry, counts, np.array([layer.macs for layer in geometry[1:]]), energy)


def published_operations(geometry: list[LayerGeometry], activity: Activity, energy: Energy) -> dict:
    """`operations` as the tutorial's table has them; frames seen from rest are left out.

    It counts positive messages only, those of the readout too, and multiplies each by channels * kernel / stride of the
    layer it goes to, borders and padding ignored; its MACs are the same product with every neuron sending.
    """
    fan_outs = np.array([_published_fan_out(layer.synapse) for layer in geometry[1:]])
    neurons = np.array([layer.neurons for layer in geometry[:-1]])
    synops = activity.positive[:, :-1] * fan_outs
    counts = Counts(activity.positive, synops, activity.is_start, ~activity.is_start)
    return operations(geometry, counts, neurons * fan_outs, energy)


def _published_fan_out(synapse: Any) -> float:
    return synapse.out_channels * np.prod(synapse.kernel_size) / np.prod(synapse.stride)


def without_layers(comparison: dict) -> dict:
    """The totals of a comparison."""
    return {name: value for name, value in comparison.items() if name != "layers"}
