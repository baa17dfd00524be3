"""The network as an HDF5 file for Loihi 2."""

import math
from pathlib import Path
from typing import Any

import h5py

from pilotnet_sdnn.files import atomic_write
from pilotnet_sdnn.sdnn.network import Network


def export_hdf5(network: Network, path: Path) -> None:
    """Write the network as netx loads it, for Loihi 2.

    Exports a copy after one forward pass: lava-dl writes the weights it last computed, which a network just loaded has
    not yet done, and it strips the weight normalisation of what it exports.
    lava-dl truncates thresholds to 1/64, although netx multiplies them by 2^12 before it rounds them to integers. Here
    they keep 64 times their full value, rounded up to a multiple of 2^-18, the resolution of the neurons' state: no
    float32 change lies between the exported threshold and the trained one.
    """
    copy = Network()
    copy.load_state_dict(network.state_dict())
    copy.initialise_shapes()
    with atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        layer = file.create_group("layer")
        blocks: list[Any] = list(copy.blocks)
        for number, block in enumerate(blocks):
            group = layer.create_group(str(number))
            block.export_hdf5(group)
            if block in copy.layers[:-1]:
                del group["neuron/vThMant"]
                group["neuron/vThMant"] = math.ceil(block.neuron.threshold.item() * 2**18) / 2**12
