"""Files between stages, checked at the door: what is damaged is refused in one line that names the stage to run.

data/frames.h5 is in test_store.py.
"""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.loihi.export import export_hdf5
from pilotnet_sdnn.loihi.fixed_point import read_network
from pilotnet_sdnn.measure.activity import Activity, HeldOutActivity, read_activity, write_activity
from pilotnet_sdnn.measure.steering import read_ann_mse, training_metrics
from pilotnet_sdnn.sdnn.network import Network, load_network, write_tensors


def held_out_activity(frames: int = 4, **changes: np.ndarray) -> HeldOutActivity:
    counts = [np.ones((frames, layers), np.int64) for layers in (8, 9, 8)]
    activity = Activity(np.zeros(frames, np.float32), *counts, np.arange(frames) == 0)
    return HeldOutActivity("a drive", np.arange(frames), np.zeros(frames, np.float32), activity, activity)


FILES: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object]]] = {  # stage, how it writes, who reads
    "network.pt": ("calibrate", lambda path: write_tensors(path, Network().state_dict()), load_network),
    "network.net": ("export", lambda path: export_hdf5(Network(), path), read_network),
    "activity.npz": ("evaluate", lambda path: write_activity(path, held_out_activity()), read_activity),
    "ann.json": ("train_ann", lambda path: path.write_text('{"ann_mse": 0.01}'), read_ann_mse),
    "training.csv": (
        "train",
        lambda path: path.write_text("epoch,lr,train_mse,test_mse\n1,0.1,0.5,0.4\n2,0.1,0.3,0.2\n"),
        training_metrics,
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """One of each."""
    folder = tmp_path_factory.mktemp("whole")
    for name, (_, write, _) in FILES.items():
        write(folder / name)
    return folder


def assert_refused(path: Path) -> None:
    stage, _, read = FILES[path.name]
    with pytest.raises(UserError) as refusal:
        read(path)
    line = str(refusal.value)
    assert line.startswith(f"{path} ") and line.isprintable() and len(line) - len(str(path)) < 300
    assert f"`dvc repro {stage}` " in line


@pytest.mark.parametrize("name", FILES)
def test_whole_files_are_read(whole, name):
    FILES[name][2](whole / name)


@pytest.mark.parametrize("name", FILES)
def test_missing_empty_cut_and_foreign_files_are_refused(whole, tmp_path, name):
    path = tmp_path / name
    assert_refused(path)
    data = (whole / name).read_bytes()
    for damage in (b"", data[: len(data) // 2] + b"\0", b"\x80\x05\x95" + bytes(99), b"<html>\x1b[31m\n" * 50):
        path.write_bytes(damage)
        assert_refused(path)


def link_out(file: h5py.File) -> None:
    with h5py.File(Path(file.filename).with_name("other.h5"), "w") as other:
        other["data"] = np.zeros(3, np.float32)
    del file["layer/1/bias"]
    file["layer/1/bias"] = h5py.ExternalLink("other.h5", "data")


def store_outside(file: h5py.File) -> None:
    shape, kind = file["layer/1/bias"].shape, file["layer/1/bias"].dtype
    del file["layer/1/bias"]
    outside = Path(file.filename).with_name("outside.bin")
    outside.write_bytes(bytes(100_000))
    file.create_dataset("layer/1/bias", shape, kind, external=[(str(outside), 0, 100_000)])


def replace(name: str, values: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = values

    return change


def promise(name: str, shape: tuple) -> Callable[[h5py.File], None]:
    """A dataset that claims terabytes and has none."""

    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, shape, np.float32)

    return change


def group_in_itself(file: h5py.File) -> None:
    file["again"] = file["/"]


@pytest.mark.parametrize(
    "change",
    [
        link_out,
        store_outside,
        group_in_itself,
        promise("layer/1/weight", (10**6, 10**6)),
        replace("layer/1/bias", np.full(24, np.nan)),
        replace("layer/1/bias", np.zeros(23)),
        replace("layer/1/weight", np.zeros((24, 3, 3))),
        replace("layer/2/weight", np.zeros((36, 23, 3, 3))),
        replace("layer/1/stride", 0),
        replace("layer/0/shape", np.array([33, 100, 3])),
        replace("layer/0/shape", np.array([-1, 33, 100])),
        replace("layer/3/neuron/vThMant", np.inf),
        replace("layer/3/neuron/vThMant", "much"),
        replace("layer/4/type", np.array([b"pool"])),
        replace("layer", np.zeros(3)),
    ],
)
def test_damaged_exported_network(whole, tmp_path, change):
    path = tmp_path / "network.net"
    path.write_bytes((whole / "network.net").read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    assert_refused(path)


WEIGHT = "blocks.1.synapse.weight_g"


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.pop(WEIGHT),
        lambda weights: weights.update({WEIGHT: weights[WEIGHT][:3]}),
        lambda weights: weights.update({WEIGHT: weights[WEIGHT] * torch.nan}),
        lambda weights: weights.update({WEIGHT: weights[WEIGHT] * 1e38}),
        lambda weights: weights.update({WEIGHT: weights[WEIGHT].double()}),
        lambda weights: weights.update({5: weights[WEIGHT]}),
        lambda weights: weights.update({WEIGHT: 3}),
        lambda weights: weights.update({"another": torch.zeros(1)}),
        lambda weights: weights.clear(),
    ],
)
def test_damaged_network(tmp_path, change):
    weights = Network().state_dict()
    change(weights)
    write_tensors(tmp_path / "network.pt", weights)
    assert_refused(tmp_path / "network.pt")


@pytest.mark.parametrize("name", ["network.pt", "activity.npz"])
def test_compressed_files_may_be_of_any_size(whole, tmp_path, name):
    with zipfile.ZipFile(whole / name) as stored, zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in stored.namelist():
            packed.writestr(entry, stored.read(entry))
    assert_refused(tmp_path / name)


@pytest.mark.parametrize(
    "changes",
    [
        {"angles": np.zeros(4, np.complex64)},
        {"angles": np.full(4, np.nan, np.float32)},
        {"labels": np.full(4, np.inf, np.float32)},
        {"labels": np.zeros(3, np.float32)},
        {"events": np.zeros((4, 7), np.int64)},
        {"restarted_synops": np.zeros((4, 8))},
        {"frames": np.zeros(4)},
        {"is_start": np.zeros(4, bool)},
        {"labels": np.array([{}, {}, {}, {}])},
    ],
)
def test_damaged_activity(whole, tmp_path, changes):
    with np.load(whole / "activity.npz") as stored:
        np.savez(tmp_path / "activity.npz", **{**stored, **changes})
    assert_refused(tmp_path / "activity.npz")


@pytest.mark.parametrize("text", ["[]", "3", '{"ann_r2": 1}', '{"ann_mse": NaN}', '{"ann_mse": "x"}', "[" * 10**5])
def test_damaged_metrics(tmp_path, text):
    (tmp_path / "ann.json").write_text(text)
    assert_refused(tmp_path / "ann.json")


def test_no_ann_baseline(tmp_path):
    (tmp_path / "ann.json").write_text(json.dumps({}))
    assert read_ann_mse(tmp_path / "ann.json") is None


@pytest.mark.parametrize(
    "text",
    [
        "epoch,train_mse,test_mse\n",
        "epoch,train_mse\n1,2\n",
        "epoch,train_mse,test_mse\n1,2,nan\n",
        "epoch\n1,2\n",
        "1\n",
    ],
)
def test_damaged_log(tmp_path, text):
    (tmp_path / "training.csv").write_text(text)
    assert_refused(tmp_path / "training.csv")


def test_control_characters_never_reach_the_terminal(tmp_path):
    (tmp_path / "training.csv").write_text("epoch,train_mse,test_mse\n1,2,\x1b[31m\n")
    with pytest.raises(UserError) as refusal:
        training_metrics(tmp_path / "training.csv")
    assert not re.search(r"[\x00-\x1f]", str(refusal.value))
