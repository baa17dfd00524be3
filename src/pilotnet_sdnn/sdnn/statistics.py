"""What an epoch came to: error and events, over its batches and all processes."""

from dataclasses import astuple, dataclass

import torch

from pilotnet_sdnn.sdnn.network import NetworkOutput
from pilotnet_sdnn.sdnn.processes import totals


@dataclass
class Statistics:
    """Sums over the batches of an epoch; every frame has the same weight, also in a short last batch."""

    squared_error: float = 0.0
    frames: int = 0
    events: int = 0  # of all layers
    event_frames: int = 0  # in which they were counted

    def add(self, mse: float, output: NetworkOutput) -> None:
        """Add a batch of sequences; events in the first frame of a sequence do not count."""
        count, length = output.angles.shape
        self.add_frames(mse, count * length, int(output.events.sum()), count * (length - 1))

    def total(self) -> "Statistics":
        """Those of all processes together."""
        (sums,) = totals(torch.tensor(astuple(self), dtype=torch.float64))
        squared_error, *counts = sums.tolist()
        return Statistics(squared_error, *map(int, counts))

    def add_frames(self, mse: float, frames: int, events: int, event_frames: int) -> None:
        """Add frames."""
        self.squared_error += mse * frames
        self.frames += frames
        self.events += events
        self.event_frames += event_frames

    @property
    def mse(self) -> float:
        """Mean squared error, sq. radians."""
        return self.squared_error / self.frames

    @property
    def events_per_frame(self) -> float:
        """Events of all layers per frame."""
        return self.events / self.event_frames if self.event_frames else 0.0

    def figures(self) -> dict[str, str]:
        """What the progress bar shows; the ANN baseline sends no events."""
        figures = {"mse": f"{self.mse:.5f}"}
        return {**figures, "events": f"{self.events_per_frame:.0f}"} if self.events else figures
