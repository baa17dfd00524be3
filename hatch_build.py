"""Install dvc_start/ beside the package, also where the package is editable."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class DvcStart(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        files = {f"dvc_start/{name}": name for name in ("pilotnet_sdnn_dvc.py", "pilotnet_sdnn_dvc.pth")}
        build_data["force_include_editable" if version == "editable" else "force_include"].update(files)
