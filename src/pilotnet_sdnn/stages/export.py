"""Export the calibrated network as HDF5 for Loihi 2."""

from pilotnet_sdnn.errors import exit_on_error
from pilotnet_sdnn.loihi.export import export_hdf5
from pilotnet_sdnn.paths import EXPORTED_NETWORK, NETWORK
from pilotnet_sdnn.sdnn.network import load_network


def main() -> None:
    export_hdf5(load_network(NETWORK), EXPORTED_NETWORK)
    print(f"{EXPORTED_NETWORK}: {EXPORTED_NETWORK.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    with exit_on_error():
        main()
