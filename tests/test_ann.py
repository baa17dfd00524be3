"""The ANN baseline, by itself and through the pipeline."""

import json

import torch
from torch.utils.flop_counter import FlopCounterMode

from pilotnet_sdnn.sdnn.ann import ann_baseline, images, predict
from pilotnet_sdnn.sdnn.geometry import layer_geometries
from pilotnet_sdnn.sdnn.network import Network


def test_has_the_macs_that_the_sigma_delta_network_is_compared_with():
    with FlopCounterMode(display=False) as counter:
        ann_baseline()(torch.zeros(1, 3, 33, 100))
    assert counter.get_total_flops() / 2 == sum(layer.macs for layer in layer_geometries(Network()))


def test_predicts_each_frame_by_itself():
    network, frames = ann_baseline().eval(), torch.randint(0, 256, (2, 3, 33, 100, 3), dtype=torch.uint8)
    expected = [[network(images(frames[i : i + 1, t : t + 1])).item() for t in range(3)] for i in range(2)]
    torch.testing.assert_close(predict(network, frames).angles, torch.tensor(expected))


def test_is_trained_and_measured_by_the_pipeline(tiny_pipeline, tmp_path):
    clone = tiny_pipeline.copy(tmp_path / "clone")
    clone.set(epochs=2)
    clone.run("dvc", "repro", "train_ann")
    metrics = json.loads((clone.path / "metrics/ann.json").read_text())
    assert metrics["ann_mse"] > 0 and metrics["ann_r2"] <= 1
    ann_baseline().load_state_dict(torch.load(clone.path / "models/ann.pt"))


def test_is_not_trained_when_not_asked_for(tiny_pipeline, tmp_path):
    clone = tiny_pipeline.copy(tmp_path / "clone")
    clone.set(ann="false")
    assert "ann: false" in clone.run("dvc", "repro", "train_ann")
    assert json.loads((clone.path / "metrics/ann.json").read_text()) == {}
