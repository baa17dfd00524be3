"""Write the exported network as a step in ONNX, for other runtimes: sdnn-onnx"""

import argparse
from pathlib import Path

from pilotnet_sdnn.errors import UserError, exit_on_error
from pilotnet_sdnn.loihi.runtime import Network
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import EXPORTED_NETWORK


def main() -> None:
    parser = argparse.ArgumentParser(prog="sdnn-onnx", description=__doc__.partition(":")[0])
    parser.add_argument("file", nargs="?", type=Path, default=Path("network.onnx"), help="default: network.onnx")
    parser.add_argument(
        "--network", type=Path, default=EXPORTED_NETWORK, help=f"the exported network; default: {EXPORTED_NETWORK}"
    )
    arguments = parser.parse_args()
    with exit_on_error():
        try:
            from pilotnet_sdnn.loihi.onnx_step import write_onnx
        except ModuleNotFoundError as absent:
            raise UserError(f"{absent.name} is not installed; run `uv run --group benchmark sdnn-onnx`") from None
        write_onnx(Network(arguments.network, load_params().corrected_neurons), arguments.file)
        size = arguments.file.stat().st_size / 1e6
        print(f"{arguments.file}: {size:.1f} MB; a frame and the state in, the angle and the state out")


if __name__ == "__main__":
    main()
