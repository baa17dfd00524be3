"""The parts of README.md and docs/ that follow from metrics/, dvc.yaml and the code: uv run cog -r -I docs FILE..."""

import ast
import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src/pilotnet_sdnn"
LAYER_SHAPES = (
    "100x33x3",
    "49x16x24",
    "24x7x36",
    "22x4x64",
    "20x2x64",
    "100",
    "50",
    "10",
    "1",
)  # width x height x channels


def metrics(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "metrics" / f"{name}.json").read_text(encoding="utf-8"))


def table(rows: list[list[str]], headers: list[str], numbers_from: int | None = None) -> str:
    """A Markdown table; columns from `numbers_from` on are aligned to the right."""
    words = len(headers) if numbers_from is None else numbers_from
    rule = ["---"] * words + ["---:"] * (len(headers) - words)
    return "\n".join(f"| {' | '.join(row)} |" for row in [headers, rule, *rows])


def results() -> str:
    """Error and operations of the default run: the SDNN, the ANN baseline, and the SDNN as Loihi 2 computes it."""
    steering, ann, loihi = metrics("evaluation"), metrics("ann"), metrics("deployment")["test_set"]
    operations = metrics("operations")
    loihi_events = sum(layer["fixed_point"] for layer in loihi["events"].values())
    rows = [
        [
            "SDNN, as trained",
            f"{steering['mse']:.5f}",
            f"{steering['mae_degrees']:.2f}°",
            f"{operations['synops_per_frame']:,.0f} synaptic operations, "
            f"**{operations['synops_sparsity']:.1f}x fewer**, from {operations['total']['events']:,.0f} events",
        ],
        [
            "SDNN, as Loihi 2 computes it",
            f"{loihi['fixed_point_mse']:.5f}",
            "",
            f"the same network in fixed point: {loihi_events:,.0f} events",
        ],
        [
            "ANN baseline",
            f"{ann['ann_mse']:.5f}",
            f"{ann['ann_mae_degrees']:.2f}°",
            f"{operations['macs_per_frame']:,} MACs",
        ],
    ]
    return table(rows, ["", "MSE, sq. radians", "mean error", "operations per frame"])


def operations() -> str:
    """Events and operations of each layer, counted exactly."""
    layers, total = metrics("operations")["layers"], metrics("operations")
    rows = [
        [
            name,
            shape,
            f"{layer['events']:,.2f}",
            f"{layer['synops']:,.0f}",
            f"{layer['activations']:,}",
            f"{layer['macs']:,}",
        ]
        for (name, layer), shape in zip(layers.items(), LAYER_SHAPES, strict=True)
    ]
    rows.append(
        [
            "**all**",
            "",
            f"{total['total']['events']:,.2f}",
            f"{total['synops_per_frame']:,.0f}",
            f"{total['neurons']:,}",
            f"{total['macs_per_frame']:,}",
        ]
    )
    sparsity = f"Sparsity: {total['events_sparsity']:.2f}x in events, {total['synops_sparsity']:.2f}x in operations."
    return "\n\n".join(
        [
            table(rows, ["layer", "shape", "SDNN: events", "synops", "ANN: activations", "MACs"], numbers_from=2),
            sparsity,
        ]
    )


def stages() -> str:
    """dvc.yaml in a table."""
    pipeline = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    rows = []
    for name, stage in pipeline.items():
        written = [out for key in ("outs", "metrics", "plots") for out in stage.get(key, [])]
        paths = [path for out in written for path in ([out] if isinstance(out, str) else out)]
        rows.append([f"`{name}`", stage["desc"], " ".join(f"`{path}`" for path in paths)])
    return table(rows, ["stage", "what it does", "what it writes"])


def modules() -> str:
    """Every package and module with the first sentence of its docstring."""
    rows = []
    for file in sorted(
        PACKAGE.rglob("*.py"), key=lambda file: (file.parent != PACKAGE, file.parent, file.name != "__init__.py", file)
    ):
        name = file.relative_to(PACKAGE).as_posix()
        if name == "__init__.py":
            continue
        doc = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
        name = f"**`{name.removesuffix('__init__.py')}`**" if name.endswith("__init__.py") else f"`{name}`"
        rows.append([name, " ".join(doc.split())])
    return table(rows, ["module", "what it holds"])


def running_camera() -> str:
    """The default network over one stretch with state carried, and over sequences that start anew."""
    deployment = metrics("deployment")
    return (
        f"In the default run the stretch of {deployment['frames']} frames has an MSE of {deployment['float_mse']:.5f}, "
        f"the sequences have {deployment['test_set']['float_mse']:.5f}. "
        "On Udacity CH2_001 (10 epochs) they have 0.01105 and 0.03454."
    )


def as_published() -> str:
    """What the tutorial's way of counting makes of the default run."""
    exact, published = metrics("operations"), metrics("operations")["as_published"]
    return (
        f"The default run has {exact['synops_sparsity']:.2f}x fewer operations. As published it would be "
        f"{published['synops_sparsity']:.2f}x."
    )
