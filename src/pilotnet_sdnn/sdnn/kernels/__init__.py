"""The fast path: computes what `network.Network` computes, as fast as an ANN of the same shape; also corrected neurons.

The kernels work on lava-dl's own modules and parameters, so training, checkpoints and export are the same. The frames
of all sequences are one batch of channels-last images: a synapse is one `conv2d`, and sigma, norm, relu, delta unit,
quantisation, dropout, rate and event count of a layer are one pass over memory, whose backward pass recomputes instead
of storing.

There are two versions. `definition` is pure torch and runs on any device. `native` is C++, compiled once per machine,
and several times faster. Forward they give the same bits; gradients differ in their last bits. `support` says which
of lava-dl's features both compute, `shared` holds what both use, `library` compiles and loads the C++ source, and
`forward` chains the layers.

C++ was chosen by measurement. On one AVX2 core the neurons of one training iteration take 36 ms with numba and 15 to
19 ms with C++; numba also compiles for 8 s at first and cannot share torch's threads. A plain call of the compiler
takes 2 s, torch's extension builder 40 s. The OpenMP threads are torch's own: both use the one libgomp of the process.

Events and weights are multiples of 2^-12 and 2^-5, so sums of their products are exact in float32 in any order, at
these magnitudes. lava-dl's batch means are not exact: ours are rounded once, lava-dl's differ in last bits. Where a
mean lies that close to a boundary of its quantisation (about one channel mean in a million), the quantised means differ
by one step. On a GPU, sums are exact without TF32 only.

Other packages use `choose`, `run`, `stream`, `continued`, `all_lanes`, `own_lanes`, `State` and `LayerState`, and
nothing else.
"""

from pilotnet_sdnn.sdnn.kernels.forward import State, all_lanes, choose, continued, own_lanes, run, stream
from pilotnet_sdnn.sdnn.kernels.shared import LayerState

__all__ = ["LayerState", "State", "all_lanes", "choose", "continued", "own_lanes", "run", "stream"]
