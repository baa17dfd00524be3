"""The parts of README.md and docs/ that follow from metrics/, dvc.yaml and the code: uv run cog -r -I docs FILE..."""

import ast
import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from tabulate import tabulate

from pilotnet_sdnn.errors import counted
from pilotnet_sdnn.params import load_params

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
    """Error and operations of the default run, as a running camera and restarted, beside the ANN baseline's."""
    stream, ann, loihi = metrics("evaluation"), metrics("ann"), metrics("deployment")
    counted = metrics("operations")
    rows = [
        [
            "**SDNN**",
            f"**{stream['mse']:.5f}**",
            f"{stream['mae_degrees']:.2f}°",
            f"{counted['synops_per_frame']:,.0f} synaptic operations, **{counted['synops_sparsity']:.1f}x fewer**",
        ],
        [
            "SDNN as Loihi 2 computes it",
            f"{loihi['fixed_point_mse']:.5f}",
            "",
            f"{loihi['fixed_point_events_per_frame']:,.0f} events; {counted['total']['events']:,.0f} as trained",
        ],
        [
            "ANN baseline",
            f"{ann['ann_mse']:.5f}",
            f"{ann['ann_mae_degrees']:.2f}°",
            f"{counted['macs_per_frame']:,} MACs",
        ],
        [
            "SDNN, restarted every 16 frames",
            f"{stream['restarted']['mse']:.5f}",
            f"{stream['restarted']['mae_degrees']:.2f}°",
            f"{counted['restarted']['synops_sparsity']:.1f}x fewer without first frames, "
            f"{counted['as_published']['synops_sparsity']:.1f}x as published",
        ],
    ]
    return table(rows, ["", "MSE, sq. radians", "mean error", "operations per frame"])


def story(**experiments: tuple[float, float, float, int, float]) -> str:
    """The default run beside experiments: MSE, r2, sparsity, lag in frames, and MSE when restarted every 16 frames."""
    stream, ann, operations = metrics("evaluation"), metrics("ann"), metrics("operations")
    rows = [["ANN baseline", f"{ann['ann_mse']:.5f} ({ann['ann_r2']:.3f})", "1x", "", ""]]
    default = (
        stream["mse"],
        stream["r2"],
        operations["synops_sparsity"],
        stream["following"]["lag_frames"],
        stream["restarted"]["mse"],
    )
    for name, (mse, r2, sparsity, lag, restarted) in {**experiments, "this default": default}.items():
        rows.append([name, f"{mse:.5f} ({r2:.3f})", f"{sparsity:.1f}x", counted(lag, "frame"), f"{restarted:.5f}"])
    return table(rows, ["", "stream: MSE (r2)", "sparsity", "lag", "restarted every 16 frames: MSE"], numbers_from=1)


def repro() -> str:
    """What stage evaluate of the default run prints."""
    stream, held = metrics("evaluation"), load_params(ROOT / "params.yaml").sequence
    return "\n".join(
        [
            "```text",
            "...",
            "Running stage 'evaluate':",
            "> PYTHONPATH=src python -m pilotnet_sdnn.stages.evaluate",
            f"as a running camera: mse {stream['mse']:.5f} sq. radians, mae {stream['mae_degrees']:.2f} degrees, "
            f"r2 {stream['r2']:.3f}; {stream['events_per_frame']:.1f} events/frame",
            f"restarted every 16 frames: mse {stream['restarted']['mse']:.5f}; holding each answer for {held} frames: "
            f"mse {stream['following']['held_mse']:.5f}",
            "...",
            "```",
        ]
    )


def diff() -> str:
    """What `dvc metrics diff` prints after experiment `sparser`, whose metrics/evaluation.json is docs/sparser.json."""
    base = metrics("evaluation")
    here = json.loads((ROOT / "docs/sparser.json").read_text(encoding="utf-8"))
    rows = []
    for name in ("events_per_frame", "mae_degrees", "mse", "r2"):
        values = (base[name], here[name], here[name] - base[name])
        rows.append(["metrics/evaluation.json", name, *(f"{round(value, 5):g}" for value in values)])
    shown = tabulate(rows, ["Path", "Metric", "HEAD", "workspace", "Change"], tablefmt="plain", disable_numparse=True)
    return f"```text\n{shown}\n...\n```"


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


def loihi() -> str:
    """The default run as trained and as Loihi 2 computes it."""
    deployment = metrics("deployment")
    variants = {
        "from the start of the hardware": deployment,
        "from the start of the trained network": deployment["same_start"],
        "from the start of the hardware, with the neurons of lava-nc 0.10": deployment["lava_nc_0_10"],
    }
    rows = [["as trained, floating point", f"{deployment['float_mse']:.5f}", ""]]
    for name, values in variants.items():
        rows.append([f"fixed point, {name}", f"{values['fixed_point_mse']:.5f}", f"{values['max_abs_difference']:.2f}"])
    return table(rows, ["", "MSE, sq. radians", "largest difference, degrees"], numbers_from=1)


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


def following() -> str:
    """Whether the network of the default run follows the road."""
    stream = metrics("evaluation")
    follows = stream["following"]
    return (
        f"The default run has an MSE of {stream['mse']:.5f}. If it held its answers, it would have "
        f"{follows['held_mse']:.5f}. The predictions spread by {follows['prediction_spread_degrees']:.1f} degrees, the "
        f"labels by {follows['label_spread_degrees']:.1f}. The lag is {counted(follows['lag_frames'], 'frame')}. The "
        f"MSE of the first tenth of the streams is {follows['first_tenth_mse']:.5f}, that of the last "
        f"{follows['last_tenth_mse']:.5f}."
    )


def as_published() -> str:
    """What the tutorial's way of counting makes of the default run."""
    operations = metrics("operations")
    return (
        f"On the same road, restarted every 16 frames, the default run needs "
        f"{operations['restarted']['synops_sparsity']:.2f}x fewer operations by an exact count without the first "
        f"frames. The published way of counting gives {operations['as_published']['synops_sparsity']:.2f}x."
    )
