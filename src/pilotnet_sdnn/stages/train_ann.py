"""Train an ordinary network on the same data and keep the best one: what sparsity costs in accuracy."""

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from pilotnet_sdnn.dataset.augmentation import Augmentation, augment
from pilotnet_sdnn.dataset.batches import batches
from pilotnet_sdnn.dataset.dataset import open_dataset
from pilotnet_sdnn.dataset.sequences import Sequences
from pilotnet_sdnn.errors import UserError, exit_on_error
from pilotnet_sdnn.files import write_metrics
from pilotnet_sdnn.measure.steering import steering_metrics
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import ANN, ANN_METRICS, FRAMES
from pilotnet_sdnn.progress import progress
from pilotnet_sdnn.sdnn.ann import ann_baseline, predict
from pilotnet_sdnn.sdnn.checkpoint import checkpoint_path, load_checkpoint, only_trainer, save_checkpoint
from pilotnet_sdnn.sdnn.network import write_tensors
from pilotnet_sdnn.sdnn.training import FlatRAdam, learning_rate


def main() -> None:
    params = load_params()
    if not params.ann:
        write_tensors(ANN, {})
        write_metrics(ANN_METRICS, {})
        print("ann: false, so no ordinary network is trained")
        return
    torch.manual_seed(params.seed)
    torch.set_num_threads(params.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    drive, videos, angles, split = open_dataset(FRAMES, params.sequence, params.split)
    amounts = Augmentation(params.mirror, params.brightness, params.contrast, params.shift, params.shift_degrees)
    test = np.sort(split.test)

    network = ann_baseline(params.dropout).to(device)
    optimizer = FlatRAdam(network.parameters(), lr=params.lr, weight_decay=params.weight_decay)
    done, best_mse, best = 0, math.inf, {}

    environment = {"stage": "train_ann", "torch": torch.__version__, "device": device.type}
    checkpoint = checkpoint_path(params, environment, FRAMES)
    with only_trainer(checkpoint):
        if state := load_checkpoint(checkpoint):
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
            done, best_mse, best = state["done"], state["best_mse"], state["best"]
            print(f"going on at epoch {done + 1} from {checkpoint}")
        for epoch in progress(range(done, params.epochs), desc="train ann", unit="epoch"):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(params.lr, epoch, params.epochs)
            order = np.random.default_rng((params.seed, epoch)).permutation(split.train)
            change = partial(augment, amounts, seed=params.seed, epoch=epoch)
            network.train()
            for frames, labels in batches(videos, angles, order, params.batch, device, change):
                loss = F.mse_loss(predict(network, frames), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            mse = steering_metrics(angles[test], predictions(network, videos, angles, test, params.batch))["mse"]
            if not math.isfinite(mse):
                raise UserError(f"ann: training diverged at epoch {epoch + 1}: try a lower `lr`")
            if mse < best_mse:
                best_mse, best = mse, {name: value.cpu().clone() for name, value in network.state_dict().items()}
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "done": epoch + 1}
            save_checkpoint(checkpoint, {**state, "random": torch.get_rng_state(), "best_mse": best_mse, "best": best})
        checkpoint.unlink(missing_ok=True)

    network.load_state_dict(best)
    steering = steering_metrics(angles[test], predictions(network, videos, angles, test, params.batch))
    write_tensors(ANN, best)
    write_metrics(ANN_METRICS, {f"ann_{name}": steering[name] for name in ("mse", "mae_degrees", "r2")})
    print(f"{drive.origin}: ordinary network, mse {steering['mse']:.5f} sq. radians, r2 {steering['r2']:.3f}")


@torch.no_grad()
def predictions(
    network: torch.nn.Module, videos: Sequences, angles: np.ndarray, chosen: np.ndarray, size: int
) -> np.ndarray:
    """Angles (S, T) in radians for the chosen sequences."""
    network.eval()
    device = next(network.parameters()).device
    parts = [predict(network, frames).cpu().numpy() for frames, _ in batches(videos, angles, chosen, size, device)]
    return np.concatenate(parts)


if __name__ == "__main__":
    with exit_on_error():
        main()
