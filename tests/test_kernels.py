"""The fast path against lava-dl's own modules: the same bits forward, the same gradients to rounding."""

import copy
import ctypes
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from lava.lib.dl.slayer.axon import delta as lava_delta
from torch import Tensor

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.kernels.library import RETURN_NUMBERS, STRUCTS, library
from pilotnet_sdnn.sdnn.lava import slayer
from pilotnet_sdnn.sdnn.losses import event_rate_loss
from pilotnet_sdnn.sdnn.network import Network, NetworkOutput, normalise

CPU = torch.device("cpu")
KINDS = ("native", "torch")
POINTER = ctypes.c_void_p


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small batches gain nothing from more threads, and on a busy machine threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drive(sequences: int, length: int, seed: int = 0) -> Tensor:
    """Frames as a camera sees them: a smooth scene that moves by some pixels a frame, with some noise."""
    generator = torch.Generator().manual_seed(seed)
    scene = F.interpolate(torch.rand(sequences, 3, 6, 20, generator=generator), size=(33, 200), mode="bicubic")
    frames = torch.stack([scene[..., 2 * (t % 50) : 2 * (t % 50) + 100] for t in range(length)], 1)
    frames = frames + 0.01 * torch.randn(frames.shape, generator=generator)
    return frames.clamp(0, 1).mul(255).byte().permute(0, 1, 3, 4, 2).contiguous()


def stock(network: Network, frames: Tensor) -> NetworkOutput:
    return network(normalise(frames))


def train(network: Network, forward: Callable[[Network, Tensor], NetworkOutput], iterations: int) -> list[float]:
    """The losses of some training iterations, from fixed data and a fixed seed."""
    torch.manual_seed(1)
    optimizer = torch.optim.RAdam(network.parameters(), lr=0.003, weight_decay=1e-5)
    losses = []
    for iteration in range(iterations):
        outcome = forward(network, drive(2, 5, seed=iteration))
        loss = F.mse_loss(outcome.angles, torch.full((2, 5), 0.3)) + event_rate_loss(outcome.rates, 0.01)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def new_network(**parameters: float) -> Network:
    torch.manual_seed(4205)
    return Network(**parameters)


@pytest.fixture(scope="module")
def trained_state() -> dict[str, Tensor]:
    network = new_network()
    train(network, stock, 8)
    return network.state_dict()


class Pass(NamedTuple):
    outcome: NetworkOutput
    loss: Tensor
    gradients: dict[str, Tensor]
    running_means: list[Tensor]


def forward_and_backward(network: Network, outcome: NetworkOutput) -> Pass:
    target = torch.linspace(-1, 1, outcome.angles.numel()).view_as(outcome.angles).to(outcome.angles)
    loss = F.mse_loss(outcome.angles, target) + 0.01 * event_rate_loss(outcome.rates, 0.01)
    network.zero_grad()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    return Pass(outcome, loss, gradients, [m.clone() for n, m in network.named_buffers() if n.endswith("running_mean")])


def assert_equals_stock(network: Network, frames: Tensor, kinds: Iterable[str] = KINDS) -> None:
    """NetworkOutput and loss are lava-dl's to the bit.

    Gradients are within a relative norm of 2e-5 of what lava-dl computes in float64, or near it as lava-dl
    is in float32. A threshold's is one sum of thousands of terms that nearly cancel: 2e-4, as lava-dl's own.
    """

    def passes(forward: Callable[[Network, Tensor], NetworkOutput], precision: torch.dtype = torch.float32) -> Pass:
        fresh = copy.deepcopy(network).to(precision)
        torch.manual_seed(7)  # dropout
        return forward_and_backward(fresh, forward(fresh, frames))

    expected = passes(stock)
    exact = passes(lambda fresh, frames: fresh(normalise(frames).double()), torch.float64)
    for kind in kinds:
        actual = passes(partial(kernels.run, kernels=kind))
        for field in NetworkOutput._fields:
            assert torch.equal(getattr(actual.outcome, field), getattr(expected.outcome, field)), f"{kind}: {field}"
        assert torch.equal(actual.loss, expected.loss), kind
        assert actual.gradients.keys() == expected.gradients.keys(), kind
        for name, gradient in exact.gradients.items():
            rounding = (expected.gradients[name] - gradient).norm()
            error = (actual.gradients[name] - gradient).norm()
            tolerance = (2e-4 if name.endswith("threshold") else 2e-5) * gradient.norm()
            assert error <= max(tolerance, 2 * rounding), f"{kind}: {name} {error / gradient.norm()}"
        torch.testing.assert_close(actual.running_means, expected.running_means, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("weights", ["fresh", "trained"])
@pytest.mark.parametrize(("sequences", "length"), [(1, 1), (3, 2), (2, 16), (1, 33)])
def test_equals_lava_dl(mode: str, weights: str, sequences: int, length: int, trained_state: dict[str, Tensor]) -> None:
    network = new_network()
    if weights == "trained":
        network.load_state_dict(trained_state)
    network.train(mode == "train")
    assert_equals_stock(network, drive(sequences, length))


def test_equals_lava_dl_with_other_parameters() -> None:
    """Dropout is one whose scale, 1 / (1 - 0.5), is exact: sums of other multiples depend on their order."""
    network = new_network(
        threshold=0.3, dense_threshold=0.3, tau_grad=0.9, scale_grad=1.7, dropout=0.5, weight_scale=3.0
    )
    assert_equals_stock(network, drive(3, 7))


class CorrectedDeltaUnit(lava_delta._DeltaUnit):
    """lava-dl's delta unit, except that its residual includes what the rounding of its output takes off."""

    @staticmethod
    def forward(ctx: Any, activations: Tensor, threshold: Tensor, *others: Any) -> Any:
        before, residual, _, _, tau_grad, scale_grad = others
        differences: list[Tensor] = []
        for activation in activations.detach().unbind(-1):
            differences.append(activation - before + residual)
            sends = differences[-1].abs() >= threshold
            residual = torch.where(sends, differences[-1].remainder(2**-12), differences[-1])
            before = activation
        stacked = torch.stack(differences, -1)
        ctx.save_for_backward(stacked, threshold, torch.tensor(tau_grad), torch.tensor(scale_grad))
        return torch.where(stacked.abs() >= threshold, stacked, 0), residual, residual


@pytest.fixture
def lava_dl_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lava_delta, "_DeltaUnit", CorrectedDeltaUnit)


@pytest.mark.usefixtures("lava_dl_corrected")
@pytest.mark.parametrize("dense_threshold", [0, 0.1])
def test_corrected_neurons_equal_lava_dl_with_a_residual_that_includes_rounding(dense_threshold: float) -> None:
    assert_equals_stock(new_network(dense_threshold=dense_threshold, corrected=True), drive(2, 12))


def test_equals_lava_dl_with_other_convolutions() -> None:
    """Strides larger than kernels, uneven ones, and padding that outputs see nothing but."""
    network = new_network()
    neuron = {"threshold": 0.1, "tau_grad": 0.5, "requires_grad": True, "shared_param": True, "activation": F.relu}
    neuron["norm"] = slayer.neuron.norm.MeanOnlyBatchNorm
    conv, weights = slayer.block.sigma_delta.Conv, {"weight_scale": 2, "weight_norm": True}
    network.blocks[2] = conv(neuron, 24, 36, (4, 2), stride=3, padding=2, **weights)  # (36, 6, 18)
    network.blocks[3] = conv(neuron, 36, 64, 1, stride=2, **weights)  # (64, 3, 9)
    network.blocks[4] = conv(neuron, 64, 40, 3, stride=(1, 3), padding=(3, 1), **weights)  # (40, 7, 3)
    network.blocks[6] = slayer.block.sigma_delta.Dense(neuron, 40 * 7 * 3, 100, **weights)
    network.initialise_shapes()
    assert_equals_stock(network, drive(2, 5))


def test_equals_lava_dl_without_norms() -> None:
    network = new_network()
    blocks: list[Any] = list(network.blocks)
    for block in blocks:
        if hasattr(block, "synapse"):
            block.neuron.norm = None
            block.synapse.disable_weight_norm()
    assert_equals_stock(network, drive(2, 6))


def test_equals_lava_dl_where_the_batch_mean_is_clamped() -> None:
    """Beyond +-4 the quantised mean is constant and passes no gradient."""
    network, frames = new_network(), drive(2, 6)
    block: Any = network.blocks[4]
    with torch.no_grad():
        block.synapse.weight_g.mul_(20)
    assert_equals_stock(network, frames)
    kernels.run(network, frames, "torch")
    norm = block.neuron.norm
    assert (norm.running_mean / norm.momentum).abs().max() > 4


def test_frozen_parameters_get_no_gradient() -> None:
    network = new_network()
    network.get_parameter("blocks.0.neuron.delta.threshold").requires_grad_(False)
    network.get_submodule("blocks.2.synapse").requires_grad_(False)
    assert_equals_stock(network, drive(2, 4))


def test_training_has_the_loss_log_of_lava_dl() -> None:
    expected = train(new_network(), stock, 50)
    assert len(set(expected)) == 50
    for kind in KINDS:
        losses = train(new_network(), partial(kernels.run, kernels=kind), 50)
        assert losses == expected, kind


def test_evaluates_without_gradients(trained_state: dict[str, Tensor]) -> None:
    network = new_network()
    network.load_state_dict(trained_state)
    network.eval()
    frames = drive(5, 16)
    with torch.no_grad():
        expected = stock(network, frames)
        for kind in KINDS:
            assert all(torch.equal(*pair) for pair in zip(kernels.run(network, frames, kind), expected, strict=True))


def test_native_outcome_does_not_depend_on_the_number_of_threads() -> None:
    network, frames = new_network().eval(), drive(3, 8)
    alone = kernels.run(network, frames, "native")
    torch.set_num_threads(2)
    together = kernels.run(network, frames, "native")
    torch.set_num_threads(1)
    assert all(torch.equal(*pair) for pair in zip(alone, together, strict=True))


def _set(path: str, value: object) -> Callable[[Network], None]:
    def change(network: Network) -> None:
        owner, name = path.rsplit(".", 1)
        setattr(network.get_submodule(owner), name, value)

    return change


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "feature"),
    [
        (_set("blocks.1.neuron.delta.cum_error", True), "cum_error"),
        (_set("blocks.2.neuron.persistent_state", True), "persistent_state"),
        (_set("blocks.2.neuron.shared_param", False), "thresholds that are not shared"),
        (_set("blocks.3.neuron.activation", torch.tanh), "activation"),
        (_set("blocks.3.neuron.norm", slayer.neuron.norm.WgtScaleBatchNorm()), "norm WgtScaleBatchNorm"),
        (_set("blocks.6.neuron.drop", torch.nn.Dropout()), "dropout Dropout"),
        (_set("blocks.7.neuron.bias_is_set", True), "bias"),
        (_set("blocks.7.delay_shift", True), "delay"),
        (_set("blocks.8.synapse.pre_hook_fx", None), "pre_hook_fx"),
        (_set("blocks.0.weight", torch.nn.Parameter(torch.ones(1))), "affine"),
        (_set("blocks.9.count_log", True), "count_log"),
        (lambda network: network.blocks.insert(1, slayer.block.sigma_delta.Flatten()), "Input, Conv"),
    ],
)
def test_refuses_by_name_what_it_does_not_compute(kind: str, change: Callable[[Network], None], feature: str) -> None:
    network = new_network()
    change(network)
    with pytest.raises(NotImplementedError, match=feature):
        kernels.run(network, drive(1, 2), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_frames_that_are_not_bytes(kind: str) -> None:
    with pytest.raises(TypeError, match="uint8"):
        kernels.run(new_network(), drive(1, 2).float(), kind)


def test_chooses_native_where_there_is_a_compiler(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert kernels.choose("auto", CPU) == "native"
    assert "native" in caplog.text


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    library.cache_clear()


@pytest.mark.parametrize("kind", ["auto", "native"])
def test_without_a_compiler_kernels_that_differ_in_the_last_bits_are_not_taken_silently(
    kind: str, no_compiler: None
) -> None:
    with pytest.raises(
        UserError, match=r"native is not possible here: there is no C\+\+ compiler: install one.*or set torch"
    ):
        kernels.choose(kind, CPU)


def test_native_on_a_gpu_is_an_error() -> None:
    with pytest.raises(UserError, match="cuda"):
        kernels.choose("native", torch.device("cuda"))


def test_torch_when_asked_for() -> None:
    assert kernels.choose("torch", CPU) == "torch"


def test_a_failing_compiler_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    library.cache_clear()
    with pytest.raises(UserError, match="false fails"):
        kernels.choose("auto", CPU)


def test_name_of_a_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for named, words in (
        ("no-such-cache g++", "there is no program 'no-such-cache'"),
        ("g++ '", "No closing quotation"),
    ):
        monkeypatch.setenv("CXX", named)
        library.cache_clear()
        with pytest.raises(UserError, match=words):
            kernels.choose("auto", CPU)


class TestCompiledLibrary:
    """What is loaded is what was compiled, by this user. The source is one that compiles in no time."""

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        source = tmp_path / "empty.cpp"
        numbers = "".join(f"double {name}() {{ return 0; }}" for name in RETURN_NUMBERS)
        source.write_text(f'extern "C" {{ void keep_freed_memory() {{}} {numbers} }}')
        monkeypatch.setattr("pilotnet_sdnn.sdnn.kernels.library.SOURCES", [source])
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        library.cache_clear()
        yield tmp_path / "pilotnet-sdnn/kernels"
        library.cache_clear()

    def compiled(self, cache: Path) -> Path:
        library.cache_clear()
        library()
        (binary,) = cache.glob("*.so")
        return binary

    def test_compiler_of_several_words(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXX", "env LANG=C c++")
        library()
        assert len(list(cache.glob("*.so"))) == 1

    def test_is_compiled_once(self, cache: Path) -> None:
        first = self.compiled(cache).stat().st_mtime_ns
        assert self.compiled(cache).stat().st_mtime_ns == first

    def test_a_truncated_file_is_compiled_again(self, cache: Path) -> None:
        binary = self.compiled(cache)
        content = binary.read_bytes()
        binary.unlink()  # the loaded file stays as it is
        binary.write_bytes(content[: len(content) // 2])
        assert self.compiled(cache).read_bytes() == content

    def test_a_file_that_others_may_write_is_compiled_again(self, cache: Path) -> None:
        binary = self.compiled(cache)
        binary.chmod(0o777)
        self.compiled(cache)
        assert binary.stat().st_mode & 0o022 == 0

    @pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
    def test_another_users_file_is_compiled_again(self, cache: Path) -> None:
        binary = self.compiled(cache)
        os.chown(binary, 12345, -1)
        self.compiled(cache)
        assert binary.stat().st_uid == 0

    @pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders away")
    def test_another_users_folder_is_not_used(self, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
        cache.mkdir(parents=True)
        os.chown(cache, 12345, -1)
        assert library() and not list(cache.iterdir())
        assert "another user owns it" in caplog.text

    def test_a_folder_that_others_may_write_is_not_used(self, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
        cache.mkdir(parents=True)
        cache.chmod(0o777)
        assert library() and not list(cache.iterdir())
        assert "may write to it" in caplog.text

    def test_the_folder_is_the_users_alone_whatever_the_umask(self, cache: Path) -> None:
        umask = os.umask(0o002)
        try:
            first = self.compiled(cache).stat().st_mtime_ns
            assert self.compiled(cache).stat().st_mtime_ns == first
        finally:
            os.umask(umask)

    def test_without_a_folder_to_write_to_native_kernels_are_compiled_all_the_same(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache.parent.mkdir()
        cache.write_text("a file where the folder should be")
        assert kernels.choose("auto", CPU) == "native"
        assert list(cache.parent.iterdir()) == [cache]

    def test_another_source_is_compiled_beside_it(self, cache: Path, tmp_path: Path) -> None:
        self.compiled(cache)
        with (tmp_path / "empty.cpp").open("a") as source:
            source.write('extern "C" int added() { return 7; }')
        library.cache_clear()
        assert library().added() == 7

    @pytest.mark.parametrize(
        ("fields", "complaint"),
        [
            ([("activation", POINTER), ("residual", POINTER), ("more", ctypes.c_int64)], "Changed has another size"),
            ([("residual", POINTER), ("activation", POINTER)], "Changed.residual differs"),
            ([("activation", POINTER), ("residual", ctypes.c_int64)], "Changed.residual differs"),
        ],
        ids=["longer", "swapped", "another type"],
    )
    def test_a_struct_of_another_layout_is_refused(
        self, fields: list, complaint: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also where an earlier version of the source is in the cache."""
        library()
        library.cache_clear()
        monkeypatch.setitem(STRUCTS, "State", type("Changed", (ctypes.Structure,), {"_fields_": fields}))
        with pytest.raises(UserError, match=complaint) as refusal:
            kernels.choose("auto", CPU)
        assert len(str(refusal.value)) <= 300 and "\n" not in str(refusal.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_torch_kernels_on_a_gpu_equal_lava_dl(mode: str, trained_state: dict[str, Tensor]) -> None:
    torch.backends.cudnn.allow_tf32 = False
    network = new_network(dropout=0.0)
    network.load_state_dict(trained_state)
    network.train(mode == "train")
    assert_equals_stock(network.to("cuda"), drive(3, 16).to("cuda"), ["torch"])
