"""Export the best network as HDF5 for Loihi 2."""

from pilotnet_sdnn.errors import reported
from pilotnet_sdnn.network import export_hdf5, load_network
from pilotnet_sdnn.paths import EXPORTED_NETWORK, NETWORK


def main() -> None:
    export_hdf5(load_network(NETWORK), EXPORTED_NETWORK)
    print(f"{EXPORTED_NETWORK}: {EXPORTED_NETWORK.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    with reported():
        main()
