"""Does the network drift? Its MSE in each tenth of one stream: ten minutes of synthetic road that it never saw.

uv run python benchmarks/ten_minutes.py, after `dvc repro`. Tenths are of different road, so they differ without drift
too: the ANN baseline, and the same network restarted every 16 frames, show by how much.
"""

import argparse

import numpy as np
import torch
from PIL import Image

from pilotnet_sdnn.dataset.resizing import resize
from pilotnet_sdnn.dataset.road import CHUNK
from pilotnet_sdnn.drive import synthetic
from pilotnet_sdnn.drive.synthetic_world import FRAME_RATE
from pilotnet_sdnn.measure.activity import TUTORIAL_SEQUENCE, EventCounter, concatenated
from pilotnet_sdnn.measure.following import TENTHS, by_tenth
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import ANN, NETWORK
from pilotnet_sdnn.sdnn.ann import load_ann, predict
from pilotnet_sdnn.sdnn.network import load_network

BATCH = CHUNK // TUTORIAL_SEQUENCE  # sequences, as many frames as a chunk of the stream
SEED = 600  # of a road that no run of docs/recipe.md was trained on


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=10 * 60 * FRAME_RATE)
    count = parser.parse_args().frames // TUTORIAL_SEQUENCE * TUTORIAL_SEQUENCE

    road = [(resize(Image.fromarray(image)), degrees) for image, degrees in synthetic.drive(count, SEED)]
    frames, labels = np.stack([frame for frame, _ in road]), np.radians([degrees for _, degrees in road])
    chunks = np.split(frames, range(CHUNK, count, CHUNK))
    counter = EventCounter(load_network(NETWORK, corrected=load_params().corrected_neurons), "native")
    stream = counter.stream(chunks)
    sequences = frames.reshape(-1, TUTORIAL_SEQUENCE, *frames.shape[1:])
    batches = np.split(sequences, range(BATCH, len(sequences), BATCH))
    restarted = concatenated([counter.sequences(batch) for batch in batches])

    print(f"synthetic road, seed {SEED}, {count} frames: MSE in sq. radians, and of each of {TENTHS} tenths")
    for name, angles in (("one stream", stream.angles), ("restarted", restarted.angles), ("ANN", ann_angles(chunks))):
        errors = (angles - labels) ** 2
        print(f"{name:10} {errors.mean():.5f} ", *(f"{mse:.5f}" for mse in by_tenth(errors, stream.is_start)))


@torch.no_grad()
def ann_angles(chunks: list[np.ndarray]) -> np.ndarray:
    """The ANN baseline's, frame by frame."""
    network = load_ann(ANN)
    return np.concatenate([predict(network, torch.from_numpy(chunk[None])).angles[0].numpy() for chunk in chunks])


if __name__ == "__main__":
    main()
