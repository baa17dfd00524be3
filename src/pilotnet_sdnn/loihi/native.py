"""The compiled runtime: `runtime.cpp`, its structs, and memory as it needs it."""

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.sdnn.kernels.library import Source, load

FOLDER = Path(__file__).parent
LANES = 16  # kLanes of runtime.hpp
PAIRS = LANES // 2
INT64, INT32, POINTER = ctypes.c_int64, ctypes.c_int32, ctypes.c_void_p


class LayerStruct(ctypes.Structure):
    """`Layer` of runtime.hpp."""

    _fields_ = (
        *((name, INT64) for name in ("height", "width", "channels", "vectors", "in_height", "kernel_height", "taps")),
        *(
            (name, INT64)
            for name in ("stride_y", "padding_y", "fewer_first", "tap_step", "kernel_step", "halo", "row_vectors")
        ),
        *((name, INT64) for name in ("pairs", "shift_up", "shift_down")),
        *((name, INT32) for name in ("threshold", "is_readout")),
        *((name, POINTER) for name in ("weights", "bias", "column_weight", "column_target", "column_fewer")),
        *((name, POINTER) for name in ("column_fan_out", "row_fan_out")),
    )


class NeuronsStruct(ctypes.Structure):
    """`Neurons` of runtime.hpp."""

    _fields_ = (("sigma", POINTER), ("sent", POINTER))


class EventsStruct(ctypes.Structure):
    """`Events` of runtime.hpp."""

    _fields_ = (
        *((name, POINTER) for name in ("row", "fewer_row", "large_row", "messages", "weight", "target")),
        *((name, POINTER) for name in ("large", "large_weight", "large_target")),
    )


class StreamStruct(ctypes.Structure):
    """`Stream` of runtime.hpp."""

    _fields_ = (
        *((name, POINTER) for name in ("neurons", "events", "sums", "input", "sent", "operations")),
        *((name, INT32) for name in ("all", "corrected")),
    )


SOURCE = Source(
    files=[FOLDER / "runtime.cpp"],
    headers=sorted(FOLDER.glob("*.hpp")),
    structs={"Layer": LayerStruct, "Neurons": NeuronsStruct, "Events": EventsStruct, "Stream": StreamStruct},
    flags=["-fwrapv"],
)


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled runtime.

    Raises:
        UserError: it cannot be compiled here.
    """
    try:
        return load(SOURCE)
    except (RuntimeError, OSError) as obstacle:
        raise UserError(f"the runtime cannot be compiled: {obstacle}") from None


def aligned(count: int, dtype: Any) -> np.ndarray:
    """(count,) zeros that begin at a cache line."""
    size = count * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype)
