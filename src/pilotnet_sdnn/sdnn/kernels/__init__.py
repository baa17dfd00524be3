"""The fast path: what `network.Network` computes, at the price of an ANN of the same shape.

The kernels work on lava-dl's own modules and parameters, so training, checkpoints and export are the same. The frames
of all sequences are one batch of channels-last images: a synapse is one `conv2d`, and sigma, norm, relu, delta unit,
quantisation, dropout, rate and event count of a layer are one pass over memory, whose backward pass recomputes instead
of storing.

There are two versions. `definition` is pure torch, on any device. `native` equals it bit for bit and is several times
faster: C++, compiled once per machine. The technique was chosen by measurement: on one AVX2 core the neurons of one
training iteration take numba 36 ms and C++ 15 to 19 ms, and numba compiles for 8 s at first and cannot share torch's
threads. A plain call of the compiler takes 2 s, torch's extension builder 40 s. The OpenMP threads are torch's own:
both use the one libgomp of the process.

Events and weights are multiples of 2^-12 and 2^-5, so sums of their products are exact in float32 in any order, at
these magnitudes. lava-dl's batch means are not exact: ours are rounded once, lava-dl's differ in last bits. Where a
mean lies that close to a boundary of its quantisation (about one channel mean in a million), the quantised means differ
by one step. On a GPU, sums are exact without TF32 only.

`choose`, `run` and `stream` are for other packages; everything else is not.
"""

from pilotnet_sdnn.sdnn.kernels.forward import State, Streamed, choose, run, stream

__all__ = ["State", "Streamed", "choose", "run", "stream"]
