"""The geometry of the network's layers: neurons, MACs and fan-outs."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pilotnet_sdnn.sdnn.network import LAYERS, Network


class LayerGeometry(NamedTuple):
    """Shape and incoming synapse of one layer."""

    name: str
    shape: tuple[int, int, int]  # channels, height, width
    synapse: Any  # the lava-dl synapse that feeds it; None for the input

    @property
    def neurons(self) -> int:
        channels, height, width = self.shape
        return channels * height * width

    @property
    def macs(self) -> int:
        """MACs of the ANN baseline in this layer, per frame."""
        return 0 if self.synapse is None else self.neurons * self.synapse.weight[0].numel()


def layer_geometries(network: Network) -> list[LayerGeometry]:
    """layer-0 to layer-8 of a network."""
    return [
        LayerGeometry(name, _image_shape(block), getattr(block, "synapse", None))
        for name, block in zip(LAYERS, network.layers, strict=True)
    ]


def _image_shape(block: Any) -> tuple[int, int, int]:
    channels, height, width = (*block.shape, 1, 1)[:3]
    return channels, height, width


@torch.enable_grad()
def fan_out(source: LayerGeometry, target: LayerGeometry) -> Tensor:
    """Outgoing synapses of each neuron of a layer, in its shape (C, H, W).

    Where every weight is one, the sum of the outputs grows by exactly this for each unit of input.
    """
    synapse = target.synapse
    source_ones = torch.ones(1, *source.shape, 1, requires_grad=True)
    x = source_ones if synapse.weight.shape[1] == source.shape[0] else source_ones.reshape(1, -1, 1, 1, 1)
    weight_ones = torch.ones_like(synapse.weight)
    y = F.conv3d(x, weight_ones, None, synapse.stride, synapse.padding, synapse.dilation, synapse.groups)
    (count,) = torch.autograd.grad(y.sum(), source_ones)
    return count.reshape(source.shape)
