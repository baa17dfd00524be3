"""Compare the operations of the sigma-delta network with those of an ordinary network of its shape."""

import json

import numpy as np

from pilotnet_sdnn.errors import exit_on_error
from pilotnet_sdnn.files import write_csv, write_metrics, write_text
from pilotnet_sdnn.measure.operations import Activity, Energy, exact_operations, operations_report, published_operations
from pilotnet_sdnn.measure.steering import steering_metrics
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import ACTIVITY, ANN_METRICS, NETWORK, OPERATIONS_METRICS, OPERATIONS_PLOT, OPERATIONS_TABLE
from pilotnet_sdnn.sdnn.geometry import layer_geometries
from pilotnet_sdnn.sdnn.network import load_network


def main() -> None:
    params = load_params()
    energy = Energy(params.energy_mac_pj, params.energy_add_pj)
    geometry = layer_geometries(load_network(NETWORK))
    stored = np.load(ACTIVITY)
    activity = Activity(*(stored[name] for name in Activity._fields))
    exact, published = (count(geometry, activity, energy) for count in (exact_operations, published_operations))
    steering = steering_metrics(stored["labels"], activity.angles)
    title = f"# Operations: {stored['origin']}"
    accuracy = f"{steering['frames']} test frames, MSE {steering['mse']:.5f} sq. radians"
    ann = json.loads(ANN_METRICS.read_text(encoding="utf-8"))
    if ann:
        accuracy += f" (ordinary network: {ann['ann_mse']:.5f})"
    report = operations_report(geometry, exact, published, f"{title}\n\n{accuracy}")

    write_metrics(OPERATIONS_METRICS, {**exact, "as_published": published})
    columns = ("events", "synops", "activations", "macs")
    rows = [(name, *(counts[column] for column in columns)) for name, counts in exact["layers"].items()]
    write_csv(OPERATIONS_PLOT, ("layer", *columns), rows)
    write_text(OPERATIONS_TABLE, report)
    print(report)


if __name__ == "__main__":
    with exit_on_error():
        main()
