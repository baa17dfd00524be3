"""The tutorial's network with plain lava-dl blocks, as an oracle that shares no code with ours."""

import torch
import torch.nn.functional as F

from pilotnet_sdnn.sdnn.lava import slayer


def event_rate_loss(x, max_rate=0.01):
    mean_event_rate = torch.mean(torch.abs(x))
    return F.mse_loss(F.relu(mean_event_rate - max_rate), torch.zeros_like(mean_event_rate))


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        neuron = {
            "threshold": 0.1, "tau_grad": 0.5, "scale_grad": 1, "requires_grad": True, "shared_param": True,
            "activation": F.relu,
        }  # fmt: skip
        conv = {**neuron, "norm": slayer.neuron.norm.MeanOnlyBatchNorm}
        dense = {**conv, "dropout": slayer.neuron.Dropout(p=0.2)}
        block, weights = slayer.block.sigma_delta, {"weight_scale": 2, "weight_norm": True}
        self.blocks = torch.nn.ModuleList(
            [
                block.Input(neuron),
                block.Conv(conv, 3, 24, 3, padding=0, stride=2, **weights),
                block.Conv(conv, 24, 36, 3, padding=0, stride=2, **weights),
                block.Conv(conv, 36, 64, 3, padding=(1, 0), stride=(2, 1), **weights),
                block.Conv(conv, 64, 64, 3, padding=0, stride=1, **weights),
                block.Flatten(),
                block.Dense(dense, 64 * 40, 100, **weights),
                block.Dense(dense, 100, 50, **weights),
                block.Dense(dense, 50, 10, **weights),
                block.Output(dense, 10, 1, **weights),
            ]
        )

    def forward(self, x):
        """The angle (N, 1, T), the event cost and the positive messages after the first frame by layer."""
        count, event_cost = [], 0
        for block in self.blocks:
            x = block(x)
            if hasattr(block, "neuron"):
                event_cost += event_rate_loss(x)
                count.append(torch.sum(x[..., 1:] > 0).item())
        return x, event_cost, torch.tensor(count)
