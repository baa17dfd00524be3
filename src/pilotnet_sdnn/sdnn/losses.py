"""What training adds to the MSE so that the network sends fewer events."""

import torch
import torch.nn.functional as F
from torch import Tensor

UNITS = 50  # in the ANN baseline's MACs of a frame, so that useful values of `lam` are near the tutorial's


def synops_loss(rates: Tensor, thresholds: Tensor, macs: Tensor) -> Tensor:
    """An upper bound on the synaptic operations, in fiftieths of the ANN baseline's MACs.

    A message is at least as large as its threshold. So, up to the rounding of messages, a layer's rate over its
    threshold is no less than its events per neuron and frame. Each layer is weighted by the MACs that its messages
    replace. This penalises operations, after Sorbaro et al., "Optimizing the energy consumption of spiking neural
    networks for neuromorphic applications", Frontiers in Neuroscience 2020. Thresholds learn from the rates alone:
    they are constants here.

    Args:
        rates: (9,) as in `NetworkOutput`; the readout's is not used, it sends no events.
        thresholds: (8,) of layer-0 to layer-7.
        macs: (8,) of layer-1 to layer-8, which is where the messages of layer-0 to layer-7 go; 0 where these
            are not penalised.
    """
    return UNITS * (macs / macs.sum() * rates[:-1] / thresholds.detach()).sum()


def no_penalty(rates: Tensor) -> Tensor:
    """Zero: for a network without events or without a limit on them."""
    return rates.new_zeros(())


def event_rate_loss(rates: Tensor, max_rate: float) -> Tensor:
    """The tutorial's penalty: a squared hinge on each layer's mean message magnitude.

    Its sum runs over all layers, so it adds the decoded angle of layer-8 as if it were events.

    Args:
        rates: (9,) as in `NetworkOutput`.
        max_rate: magnitude below which a layer is not penalised.
    """
    return sum((F.relu(rate - max_rate) ** 2 for rate in rates), start=torch.zeros((), device=rates.device))
