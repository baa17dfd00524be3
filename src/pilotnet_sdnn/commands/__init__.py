"""Commands beside the pipeline: one module each, `uv run sdnn-NAME`."""
