"""The tables of plots/operations.md: markdown that reads as text in 80 columns."""

import tabulate

from pilotnet_sdnn.sdnn.geometry import LayerGeometry

tabulate.MIN_PADDING = 0  # of headers: so the tables fit in 80 columns; tabulate has no argument for it


def operations_report(geometry: list[LayerGeometry], stream: dict, restarted: dict, published: dict, title: str) -> str:
    """The comparisons of `measure.operations`, the last as the tutorial prints its own."""
    return (
        f"{title}\n\n"
        "Per frame. Events and synops: the sigma-delta network. Activations and MACs:\n"
        "the ANN baseline, of the same shape.\n\n"
        "## As a running camera\n\n"
        "Each held-out stretch is one stream; every frame counts, its start included.\n\n"
        f"{_table(geometry, stream)}\n"
        "95th percentile and worst of these frames, and the mean of the starts, which\nare sent whole\n\n"
        f"{_spread_table(stream)}\n"
        "## Restarted\n\n"
        "The tutorial's protocol: the same road in sequences of 16 frames that start\n"
        "anew, their first frames not counted.\n\n"
        f"{_sums(restarted)}\n"
        "## As published\n\n"
        "Restarted, and positive messages only, borders and padding ignored\n\n"
        f"{_table(geometry, published)}\n"
        "## Energy\n\n"
        "Of the arithmetic, estimated; memory not included\n\n"
        f"{_energy(stream, restarted, published)}"
    )


def _table(geometry: list[LayerGeometry], comparison: dict) -> str:
    rows: list[tuple] = []
    for layer in geometry:
        channels, height, width = layer.shape
        counts = comparison["layers"][layer.name]
        synops, macs = ("", "") if layer.synapse is None else (f"{counts['synops']:.2f}", counts["macs"])
        shape = f"({width:3d},{height:3d},{channels:3d})"
        rows.append((layer.name, shape, f"{counts['events']:.2f}", synops, counts["activations"], macs))
    events = sum(counts["events"] for counts in comparison["layers"].values())
    total = f"{comparison['synops_per_frame']:.2f}", comparison["neurons"], comparison["macs_per_frame"]
    rows.append(("Total", "", f"{events:.2f}", *total))
    head = ("Layer", "Shape", "Events", "Synops", "Activations", "MACs")
    return f"{_markdown(head, rows, text_columns=2)}\n\n{_sums(comparison)}"


def _sums(comparison: dict) -> str:
    sums = "Events sparsity: {events_sparsity:.2f}x, synops sparsity: {synops_sparsity:.2f}x, neurons: {neurons}\n"
    return sums.format(**comparison)


def _spread_table(comparison: dict) -> str:
    names = [f"{count}_{kind}" for count in ("events", "synops") for kind in ("p95", "worst", "first")]
    layers = [*comparison["layers"].items(), ("Total", comparison["total"])]
    rows = [(layer, *(f"{counts[name]:.0f}" for name in names)) for layer, counts in layers]
    head = ("Layer", "Events p95", "worst", "start", "Synops p95", "worst", "start")
    return _markdown(head, rows, text_columns=1) + "\n"


def _markdown(head: tuple, rows: list[tuple], text_columns: int) -> str:
    align = ["left"] * text_columns + ["right"] * (len(head) - text_columns)
    return tabulate.tabulate(rows, head, tablefmt="github", colalign=align, disable_numparse=True)


def _energy(stream: dict, restarted: dict, published: dict) -> str:
    line = "{sdnn:.3f} microjoules a frame (worst {sdnn_worst:.3f}) against {ann:.3f}: {ratio:.1f}x\n"
    named = {"running": stream, "restarted": restarted, "as published": published}
    return "\n".join(f"{name}: {line.format(**counts['energy_microjoules'])}" for name, counts in named.items())
