"""The exported network in integers, as Loihi 2 computes it (`fixed_point`), and beside the trained one.

Outside, use `export`, `fixed_point` to run the network over whole drives, `runtime` to run it frame by frame,
`onnx_step` to write it for other runtimes, and `comparison` to put it beside netx and the trained one.
"""
