"""Compare the operations of the sigma-delta network with those of the ANN baseline."""

from pilotnet_sdnn.errors import exit_on_error
from pilotnet_sdnn.files import write_csv, write_metrics, write_text
from pilotnet_sdnn.measure.activity import read_activity
from pilotnet_sdnn.measure.operations import Energy, exact_operations, published_operations, without_layers
from pilotnet_sdnn.measure.steering import read_ann_mse
from pilotnet_sdnn.measure.tables import operations_report
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import ACTIVITY, ANN_METRICS, NETWORK, OPERATIONS_METRICS, OPERATIONS_PLOT, OPERATIONS_TABLE
from pilotnet_sdnn.sdnn.accuracy import steering_metrics
from pilotnet_sdnn.sdnn.geometry import layer_geometries
from pilotnet_sdnn.sdnn.network import load_network


def main() -> None:
    params = load_params()
    energy = Energy(params.energy_mac_pj, params.energy_add_pj)
    geometry = layer_geometries(load_network(NETWORK))
    held_out = read_activity(ACTIVITY)

    stream = exact_operations(geometry, held_out.running, energy)
    restarted = exact_operations(geometry, held_out.restarted, energy, starts_count=False)
    published = published_operations(geometry, held_out.restarted, energy)
    write_metrics(OPERATIONS_METRICS, {**stream, "restarted": without_layers(restarted), "as_published": published})

    steering = steering_metrics(held_out.labels, held_out.running.angles)
    accuracy = f"{steering['frames']} held-out frames, MSE {steering['mse']:.5f} sq. radians"
    if (ann_mse := read_ann_mse(ANN_METRICS)) is not None:
        accuracy += f" (ANN baseline: {ann_mse:.5f})"
    title = f"# Operations: {held_out.origin}\n\n{accuracy}"
    report = operations_report(geometry, stream, restarted, published, title)
    write_text(OPERATIONS_TABLE, report)

    columns = ("events", "synops", "activations", "macs")
    rows = [(name, *(counts[column] for column in columns)) for name, counts in stream["layers"].items()]
    write_csv(OPERATIONS_PLOT, ("layer", *columns), rows)
    print(report)


if __name__ == "__main__":
    with exit_on_error():
        main()
