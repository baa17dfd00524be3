"""Our network against the tutorial's, built from plain lava-dl blocks, and against netx."""

import h5py
import pytest
import torch
import tutorial
from conftest import drifting_noise, trained_network

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.loihi.export import export_hdf5
from pilotnet_sdnn.sdnn.geometry import layer_geometries
from pilotnet_sdnn.sdnn.lava import simulate_fixed_point
from pilotnet_sdnn.sdnn.losses import event_rate_loss, synops_loss
from pilotnet_sdnn.sdnn.network import Network, load_network, normalise, write_tensors


@pytest.fixture
def videos() -> torch.Tensor:
    return drifting_noise(sequences=3, frames=6)


@pytest.fixture
def trained(videos) -> Network:
    """A network after a few optimizer steps, with batch-norm means and thresholds that moved."""
    return trained_network(videos, lambda network, outcome: event_rate_loss(outcome.rates, 0.01))


def test_starts_with_the_tutorials_weights():
    torch.manual_seed(4205)
    ours = Network().state_dict()
    torch.manual_seed(4205)
    theirs = tutorial.Network()
    theirs(torch.zeros(1, 3, 33, 100, 2))
    assert ours.keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        if not name.endswith("running_mean"):  # the tutorial's has seen a training batch by now
            assert torch.equal(ours[name], tensor), name


def test_saved_network_loads_strictly_in_the_tutorials_class_and_computes_the_same(trained, videos, tmp_path):
    write_tensors(tmp_path / "network.pt", trained.state_dict())
    saved = torch.load(tmp_path / "network.pt", weights_only=True)
    theirs = tutorial.Network()
    theirs.eval()(normalise(videos))
    with pytest.raises(RuntimeError, match="size mismatch"):
        theirs.load_state_dict(saved)
    theirs.train()(normalise(videos))  # gives the batch-norm means their shape, as docs/loihi.md says
    theirs.load_state_dict(saved, strict=True)
    angle, event_cost, _ = theirs.eval()(normalise(videos))

    ours = load_network(tmp_path / "network.pt")(normalise(videos))
    assert torch.equal(ours.angles, angle.flatten(1))
    torch.testing.assert_close(event_rate_loss(ours.rates, 0.01), event_cost)  # its means are float32


def test_synops_loss_by_hand():
    """Layers weigh by the MACs their messages replace; a rate counts in thresholds, the readout's not at all."""
    rates, thresholds, macs = torch.zeros(9), torch.ones(8), torch.zeros(8)
    rates[[0, 2, 8]] = torch.tensor([0.1, 0.02, 7.0])
    thresholds[[0, 2]] = torch.tensor([0.5, 0.1])
    macs[[0, 2, 3]] = torch.tensor([100.0, 300.0, 600.0])
    # 100/1000 * 0.1/0.5 + 300/1000 * 0.02/0.1 = 0.02 + 0.06, in fiftieths
    assert synops_loss(rates, thresholds, macs).item() == pytest.approx(4)


def test_synops_loss_is_no_less_than_the_synaptic_operations(trained, videos):
    """Counted one by one in the same frames, borders apart: the first layers' fan-outs are smaller there."""
    network = trained.eval()
    macs = torch.tensor([float(layer.macs) for layer in layer_geometries(network)[1:]])
    messages = list(network.messages(normalise(videos)))[:-1]
    density = torch.stack([(message != 0).double().mean() for message in messages])
    share = (density * macs / macs.sum()).sum()
    bound = synops_loss(network(normalise(videos)).rates, network.thresholds, macs) / 50
    assert 0 < share <= bound * (1 + 1e-3)


def test_synops_loss_teaches_thresholds_through_the_rates_alone(trained, videos):
    rates = trained(normalise(videos)).rates.detach()
    assert not synops_loss(rates, trained.thresholds, torch.ones(8)).requires_grad


def test_frames_are_normalised_as_torchvision_does(videos):
    from torchvision.transforms import Compose, Normalize, ToTensor

    transform = Compose([ToTensor(), Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
    expected = torch.stack([torch.stack([transform(f.numpy()) for f in video], -1) for video in videos])
    assert torch.equal(normalise(videos), expected)


def test_same_weights_give_the_same_bytes_under_any_name(trained, tmp_path):
    for name in ("a.pt", "b.pt"):
        write_tensors(tmp_path / name, trained.state_dict())
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_export_after_load_equals_export_after_training(trained, tmp_path):
    export_hdf5(trained, tmp_path / "after_training.net")
    write_tensors(tmp_path / "network.pt", trained.state_dict())
    export_hdf5(load_network(tmp_path / "network.pt"), tmp_path / "after_load.net")
    assert (tmp_path / "after_training.net").read_bytes() == (tmp_path / "after_load.net").read_bytes()


def test_exported_weights_are_the_trained_ones(trained, tmp_path):
    """Also those of the readout, of which stock lava-dl exports what was computed last."""
    export_hdf5(trained, tmp_path / "network.net")
    trained.initialise_shapes()  # lava-dl normalises weights in the forward pass
    with h5py.File(tmp_path / "network.net") as file:
        for number in (1, 4, 6, 9):
            synapse = trained.blocks[number].synapse
            weight = (synapse.weight * 32).round().clamp(-128, 127) * 2
            exported = torch.tensor(file[f"layer/{number}/weight"][:])
            assert torch.equal(exported.flatten(), weight.detach().flatten())


def test_exported_thresholds_are_the_trained_ones(trained, tmp_path):
    """lava-dl cuts them off to 1/64; no state, in steps of 2^-18, lies between ours and the trained ones."""
    export_hdf5(trained, tmp_path / "network.net")
    with h5py.File(tmp_path / "network.net") as file:
        for number, threshold in zip((0, 1, 2, 3, 4, 6, 7, 8), trained.thresholds.tolist(), strict=True):
            steps = file[f"layer/{number}/neuron/vThMant"][()] * 2**12
            assert steps == int(steps) and steps - 1 < threshold * 2**18 <= steps


def test_export_leaves_the_network_trainable(trained, videos, tmp_path):
    export_hdf5(trained, tmp_path / "network.net")
    trained.load_state_dict(trained.state_dict())
    trained(normalise(videos)).angles.sum().backward()


def test_exported_network_runs_in_netx(trained, tmp_path):
    export_hdf5(trained, tmp_path / "network.net")
    black = torch.zeros(100, 33, 3, 1).numpy()
    steps = list(simulate_fixed_point(tmp_path / "network.net", black, steps=2))
    assert [layers[-1].shape for layers in steps] == [(1,), (1,)]


@pytest.mark.parametrize("content", [None, b"", b"not a network", b"hi\n"])
def test_missing_or_foreign_network_file(tmp_path, content):
    path = tmp_path / "network.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"network\.pt is (damaged|not in this clone)"):
        load_network(path)
