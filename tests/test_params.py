"""What params.yaml may say, and what a user reads when it says something else."""

import re
import shlex
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.params import load_params

DEFAULTS = (Path(__file__).parent.parent / "params.yaml").read_text()


def edited(tmp_path: Path, name: str, value: str) -> Path:
    """A params.yaml with one value changed, as `dvc exp run -S name=value` writes it."""
    lines = [f"{name}: {value}" if line.startswith(f"{name}:") else line for line in DEFAULTS.splitlines()]
    path = tmp_path / "params.yaml"
    path.write_text("\n".join(lines))
    return path


def test_the_docs_have_the_tutorials_recipe(tmp_path):
    """One command in docs/recipe.md turns the defaults into the tutorial's hyperparameters and protocol."""
    tutorial = {
        "seed": 4205, "batch": 8, "sequence": 16, "lr": 0.001, "lam": 0.01, "max_rate": 0.01, "weight_decay": 1e-5,
        "threshold": 0.1, "dense_threshold": 0.1, "tau_grad": 0.5, "scale_grad": 1, "dropout": 0.2, "weight_scale": 2,
        "event_loss": "published", "split": "random", "pretrain_epochs": 0, "sparsity": 0,
        "carry": 1, "corrected_neurons": False,
    }  # fmt: skip
    recipe = (Path(__file__).parent.parent / "docs/recipe.md").read_text().replace("\\\n", " ")
    (command,) = {line.strip() for line in recipe.splitlines() if "-S event_loss=published" in line}
    path = tmp_path / "params.yaml"
    path.write_text(DEFAULTS)
    for name, value in re.findall(r"-S (\w+)=(\S+)", command):
        path.write_text(re.sub(rf"(?m)^{name}: [^#\n]*", f"{name}: {value} ", path.read_text()))
    params = load_params(path)
    assert {name: getattr(params, name) for name in tutorial} == tutorial


@pytest.mark.parametrize(("written", "number"), [("1e-05", 1e-5), ("0.00001", 1e-5), ("1E+1", 10.0), ("2", 2)])
def test_numbers_as_dvc_writes_them(tmp_path, written, number):
    assert load_params(edited(tmp_path, "lam", written)).lam == number


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lam", "much", "a number >= 0"),
        ("lam", "-1", "a number >= 0"),
        ("lam", ".nan", "a number >= 0"),
        ("lr", "0", "a number > 0"),
        ("dropout", "1", "a number >= 0 and < 1"),
        ("epochs", "2.5", "a whole number >= 1"),
        ("epochs", "true", "a whole number >= 1"),
        ("sequence", "1", "a whole number >= 2"),
        ("deploy_frames", "0", "a whole number >= 2"),
        ("mirror", "1.5", "a number from 0 to 1"),
        ("brightness", "-0.1", "a number from 0 to 1"),
        ("contrast", "high", "a number from 0 to 1"),
        ("shift", "0.5", "a whole number >= 0"),
        ("shift_degrees", ".inf", "a number"),
        ("split", "half", "one of random, blocked"),
        ("event_loss", "[events]", "one of synops, published"),
        ("source", "7", "synthetic, pilotnet, a path or an http(s) URL, or a list of these"),
        ("source", "[a.zip, 7]", "synthetic, pilotnet, a path or an http(s) URL, or a list of these"),
        ("source", "[]", "synthetic, pilotnet, a path or an http(s) URL, or a list of these"),
        ("on_bad_frame", "ignore", "one of error, skip"),
        ("csv_columns", "{frame: image}", "frame, angle, time and camera, each"),
        ("csv_columns", "{frame: image, angle: null, time: null}", "frame, angle, time and camera, each"),
    ],
)
def test_ill_typed_parameter_is_named_with_what_is_allowed(tmp_path, name, value, expected):
    with pytest.raises(UserError) as error:
        load_params(edited(tmp_path, name, value))
    assert f"params.yaml: {name}: expected {expected}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lr", "9" * 400, "a number > 0"),
        ("lr", "9" * 5000, "not valid YAML"),
        ("lr", "!!int hello", "not valid YAML"),
        ("lr", "2026-99-99", "not valid YAML"),
        ("lr", "1e999", "a number > 0"),
        ("lr", "[" * 5000, "not valid YAML"),
        ("lr", '"' + "x" * 10**6 + '"', "a number > 0"),
        ("lr", '"\\x1b[2J\\u202e"', "a number > 0"),
        ("lr", "&a [1, 2]\nlam: *a", "aliases"),
        ("seed", str(2**64), "a whole number >= 0 and <= 18,446,744,073,709,551,615"),
        ("threads", "2147483648", "a whole number >= 1 and <= 1,024"),
        ("max_gigabytes", "1e308", "a number > 0 and <= 1,000,000"),
        ("sequence", str(10**18), "a whole number >= 2 and <= 1,000,000"),
        ("synthetic_frames", str(10**18), "a whole number >= 1 and <= 2,000,000"),
        ("source", "[" + ", ".join(["a.zip"] * 10**5) + ", 7]", "synthetic, pilotnet, a path"),
    ],
)
def test_extreme_values_are_one_short_line(tmp_path, name, value, expected):
    with pytest.raises(UserError) as error:
        load_params(edited(tmp_path, name, value))
    message = str(error.value).replace(str(tmp_path), "")
    assert expected in message and message.isprintable() and len(message) <= 300


def test_unknown_parameter_is_named_with_the_likely_one(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(DEFAULTS + "treshold: 0.2\n")
    with pytest.raises(UserError, match="unknown parameter 'treshold'; did you mean 'threshold'"):
        load_params(path)


def test_missing_parameter_is_named(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(DEFAULTS.replace("lam:", "# lam:"))
    with pytest.raises(UserError, match="missing parameter 'lam'; add it as a number >= 0"):
        load_params(path)


@pytest.mark.parametrize("text", ["lam: [", "lam: 1\nlam: 2\n", "- 1\n", ""])
def test_broken_file_is_one_line(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_params(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["drives/münchen", "drives/it's mine", "drives/may [1].zip", 'the "best" drive', "a=b,c"]
)
def test_name_of_a_source_with_any_character(tmp_path, name):
    """Written as docs/drives.md says, it goes through the shell and DVC's parser of -S."""
    escaped = name.replace('"', '\\"').replace("'", "'\\''")
    page = (Path(__file__).parent.parent / "docs/drives.md").read_text()
    assert "-S 'source=\"drives/it'\\''s\"'" in page  # the same two pairs of quotes, and a quote in the name
    path = tmp_path / "params.yaml"
    path.write_text(DEFAULTS)
    apply_overrides(path, shlex.split(f"""'source="{escaped}"'"""))
    assert load_params(path).source == name


def test_more_processes_than_sequences_in_a_batch_are_refused(tmp_path):
    with pytest.raises(UserError, match="processes: expected at most 2, the sequences of a batch, found 3"):
        load_params(edited(tmp_path, "processes", "3"))
