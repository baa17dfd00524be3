"""Write the locked versions of the libraries that the outputs depend on.

Stages name the versions they depend on as parameters. So an upgrade of torch in uv.lock retrains, and an upgrade of a
linter runs only this stage.
"""

import json
import tomllib
from pathlib import Path

from pilotnet_sdnn.errors import UserError, exit_on_error
from pilotnet_sdnn.files import write_text
from pilotnet_sdnn.paths import ENVIRONMENT

UV_LOCK = Path("uv.lock")
LIBRARIES = (
    "av", "h5py", "lava-dl", "lava-nc", "matplotlib", "numpy", "opencv-python-headless", "pillow", "scipy",
    "simplejpeg", "torch",
)  # fmt: skip


def main() -> None:
    try:
        packages = tomllib.loads(UV_LOCK.read_text(encoding="utf-8"))["package"]
        locked = {package["name"]: package["version"] for package in packages if package["name"] in LIBRARIES}
        versions = {library: locked[library] for library in LIBRARIES}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f"{UV_LOCK}: not a lock file with {', '.join(LIBRARIES)} ({error!r}); `uv lock` creates it"
        ) from None
    # quoted, or YAML reads 2.10 as the number 2.1
    write_text(ENVIRONMENT, "".join(f"{library}: {json.dumps(version)}\n" for library, version in versions.items()))
    print(f"{ENVIRONMENT}: torch {versions['torch']}, lava-dl {versions['lava-dl']}")


if __name__ == "__main__":
    with exit_on_error():
        main()
