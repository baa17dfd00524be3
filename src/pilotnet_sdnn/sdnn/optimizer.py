"""The optimizer of both networks."""

from collections.abc import Iterable

import torch


class FlatRAdam(torch.optim.RAdam):
    """torch.optim.RAdam on parameters laid end to end: the same bits, without a dozen small kernels for each.

    Every parameter must have a gradient at every step.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, weight_decay: float) -> None:
        self.parameters = list(parameters)
        self.flat = torch.nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in self.parameters]))
        parts = self.flat.data.split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.data = part.view_as(parameter)
        super().__init__([self.flat], lr=lr, weight_decay=weight_decay)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step."""
        self.flat.grad = torch.cat([parameter.grad.flatten() for parameter in self.parameters])  # type: ignore[union-attr]
        super().step()
