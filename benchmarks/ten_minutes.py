"""Does the network drift? Its MSE in each tenth of one stream: ten minutes of synthetic road that it never saw.

uv run python benchmarks/ten_minutes.py, after `dvc repro`. Tenths are of different road, so they differ without drift
too: the same network restarted every 16 frames shows by how much.
"""

import argparse

import numpy as np
from PIL import Image

from pilotnet_sdnn.dataset.resizing import resize
from pilotnet_sdnn.dataset.road import CHUNK
from pilotnet_sdnn.drive import synthetic
from pilotnet_sdnn.measure.activity import TUTORIAL_SEQUENCE, EventCounter
from pilotnet_sdnn.measure.following import TENTHS, by_tenth
from pilotnet_sdnn.paths import NETWORK
from pilotnet_sdnn.sdnn.network import load_network

SEED = 600  # of a road that no run of docs/recipe.md was trained on


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=12_000)  # at 20 per second
    count = parser.parse_args().frames // TUTORIAL_SEQUENCE * TUTORIAL_SEQUENCE

    road = [(resize(Image.fromarray(image)), degrees) for image, degrees in synthetic.drive(count, SEED)]
    frames, labels = np.stack([frame for frame, _ in road]), np.radians([degrees for _, degrees in road])
    counter = EventCounter(load_network(NETWORK), "native")
    stream = counter.stream(np.split(frames, range(CHUNK, count, CHUNK)))
    sequences = np.split(frames, count // TUTORIAL_SEQUENCE)
    restarted = np.concatenate([counter.sequences(sequence[None]).angles for sequence in sequences])

    print(f"synthetic road, seed {SEED}, {count} frames: MSE in sq. radians, and of each of {TENTHS} tenths")
    for name, angles in (("one stream", stream.angles), ("restarted", restarted)):
        errors = (angles - labels) ** 2
        print(f"{name:10} {errors.mean():.5f} ", *(f"{mse:.5f}" for mse in by_tenth(errors, stream.is_start)))


if __name__ == "__main__":
    main()
