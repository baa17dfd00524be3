"""Write .dvc/plots_page.html, the page that `dvc plots show` and `dvc plots diff` fill, with Vega inside.

DVC's own page loads Vega from the web and is blank without a network. Run this after an upgrade of vl-convert.
"""

from pathlib import Path

import vl_convert

PAGE = Path(__file__).parent.parent / ".dvc/plots_page.html"

# DVC writes the rows of plots into the page as they are, so those of a stranger's run may have scripts in them: they
# can load nothing and send nothing. Vega needs inline scripts and eval, the pictures lie beside the page.
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: file:"


def page() -> str:
    """The page: DVC replaces what stands in braces."""
    return f"""\
<!DOCTYPE html>
<html>
<head>
    <meta charset="utf-8">
    <meta http-equiv="Content-Security-Policy" content="{POLICY}">
    {{refresh_tag}}
    <title>Plots</title>
    <!-- Vega, Vega-Lite and Vega-Embed (BSD-3-Clause, https://vega.github.io), as vl-convert-python bundles them -->
    <script>(() => {{{vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")}}})();</script>
    <style>table {{ border-spacing: 15px; }}</style>
</head>
<body>
    {{plot_divs}}
</body>
</html>
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
