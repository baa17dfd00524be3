"""Which of lava-dl's features the kernels compute; a network with any other is refused by name."""

from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch.nn.utils.weight_norm import WeightNorm

from pilotnet_sdnn.sdnn.lava import slayer
from pilotnet_sdnn.sdnn.network import Network

sdnn = slayer.block.sigma_delta


def refuse_unsupported(network: Network) -> None:
    """Raise NotImplementedError for the first feature of the blocks that only lava-dl itself computes."""
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
