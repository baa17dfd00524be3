"""The exported network as Loihi 2 computes it, in integers, and its comparison with the trained one.

Outside, use `export`, `fixed_point` to run the network, and `comparison` to put it beside netx and the trained one.
"""
