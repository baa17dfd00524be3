"""Events and training in metrics/evaluation.json and metrics/train.json, and the ANN baseline's error."""

import csv
import json
import math
from pathlib import Path

from pilotnet_sdnn.errors import check_present, damaged
from pilotnet_sdnn.measure.activity import Activity
from pilotnet_sdnn.sdnn.network import LAYERS

PLOTTED_FRAMES = 1200  # in plots of the steering wheel, a minute of a 20 Hz camera


def event_metrics(activity: Activity) -> dict:
    """Events per frame, positive and negative, in total and by layer."""
    events = [*activity.events.mean(0).tolist(), 0.0]
    return {"events_per_frame": sum(events), "events": dict(zip(LAYERS, events, strict=True))}


def training_metrics(log: Path) -> dict:
    """The best epoch, counted from 1, and the last one of a training log.

    Raises:
        UserError: it is missing or damaged.
    """
    check_present(log, "train")
    try:
        with log.open(encoding="utf-8", newline="") as file:
            epochs = [{column: float(value) for column, value in row.items()} for row in csv.DictReader(file)]
        if not epochs or not all(math.isfinite(value) for epoch in epochs for value in epoch.values()):
            raise ValueError("expected a row of finite numbers for every epoch")
        best, last = min(epochs, key=lambda epoch: epoch["test_mse"]), epochs[-1]
        return {
            "best_epoch": int(best["epoch"]),
            "best_test_mse": best["test_mse"],
            "final_train_mse": last["train_mse"],
            "final_test_mse": last["test_mse"],
        }
    except Exception as error:  # the csv reader and float raise many kinds of errors
        raise damaged(log, error, "train") from None


def read_ann_mse(metrics: Path) -> float | None:
    """The ANN baseline's MSE from metrics/ann.json, sq. radians; None where none was trained.

    Raises:
        UserError: the file is missing or damaged.
    """
    check_present(metrics, "train_ann")
    try:
        content = json.loads(metrics.read_text(encoding="utf-8"))
        if content == {}:
            return None
        mse = float(content["ann_mse"])
        if not math.isfinite(mse):
            raise ValueError("ann_mse is not a finite number")
        return mse
    except Exception as error:  # KeyError, TypeError, RecursionError, ...
        raise damaged(metrics, error, "train_ann") from None
