"""The compiled C++ source: built once for this machine, kept in the user's cache, checked whenever it is loaded."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from pilotnet_sdnn.paths import user_cache

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
SOURCES = sorted(FOLDER.glob("*.cpp"))
HEADERS = sorted(FOLDER.glob("*.hpp"))
FLAGS = [
    "-std=c++17", "-O3", "-shared", "-fPIC",
    "-fno-math-errno", "-fno-trapping-math",  # or loops with comparisons and roundings are not vectorised
    "-ffp-contract=fast",  # see lanes.hpp for why results stay exact
    "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native",
    *(["-Xclang", "-fopenmp", "-undefined", "dynamic_lookup"] if platform.system() == "Darwin" else ["-fopenmp"]),
]  # fmt: skip


class NeuronsStruct(ctypes.Structure):
    """`Neurons` of neurons.hpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("sequences", "frames", "neurons", "channels")),
        *((name, ctypes.c_float) for name in ("threshold", "tau_grad", "scale_grad", "scale")),
        *((name, ctypes.c_int32) for name in ("has_dendrite", "threads")),
    )


class StateStruct(ctypes.Structure):
    """`State` of neurons.hpp."""

    _fields_ = (("activation", ctypes.c_void_p), ("residual", ctypes.c_void_p))


class ConvolutionStruct(ctypes.Structure):
    """`Convolution` of events.hpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "inputs")),
        *((name, ctypes.c_int64) for name in ("out_height", "out_width", "outputs")),
        *((name, ctypes.c_int64) for name in ("kernel_height", "kernel_width", "stride_y", "stride_x")),
        *((name, ctypes.c_int64) for name in ("padding_y", "padding_x")),
        ("threads", ctypes.c_int32),
    )


STRUCTS = {"neurons": NeuronsStruct, "state": StateStruct, "convolution": ConvolutionStruct}


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled source, compiled now if this machine has not done so before.

    The user's cache keeps it under what it depends on: source, flags, compiler and CPU. A folder or file that somebody
    else may have written is not used, and neither is a file whose content has changed since it was compiled. Where
    there is no cache to use, the library is compiled for this process alone.

    Raises:
        RuntimeError: there is no compiler, it fails, or the structs differ from those of this module.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        raise RuntimeError("there is no C++ compiler (Debian: apt install g++; macOS: xcode-select --install)")
    command = [compiler, *FLAGS]
    target = _output([*command, "-dM", "-E", "-x", "c++", os.devnull])  # names the compiler and the CPU's instructions
    source = [path.read_text(encoding="utf-8") for path in (*HEADERS, *SOURCES)]
    key = hashlib.sha256("\n".join([*command, target, *source]).encode()).hexdigest()[:16]
    loaded = _from_cache(command, key) or _for_this_process(command)
    for returns_number in (loaded.activation_gradients, loaded.sensitivities, loaded.inner_product):
        returns_number.restype = ctypes.c_double
    check_layouts(loaded)
    loaded.keep_freed_memory()
    return loaded


def _from_cache(command: list[str], key: str) -> ctypes.CDLL | None:
    """The library that the user's cache holds, compiled into it if need be; None without a usable cache."""
    cache = user_cache()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not _only_ours(cache):
            logger.warning("kernels: %s is not used: others may write to it; `chmod go-w` it", cache)
            return None
        binary = next((path for path in cache.glob(f"kernels-{key}-*.so") if _intact(path)), None)
        if binary is None:
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                fresh = _compile(command, Path(scratch))
                binary = cache / f"kernels-{key}-{_digest(fresh)}.so"
                fresh.replace(binary)  # at once: another process may be compiling it too
            logger.info("kernels: compiled %s", binary)
    except OSError as obstacle:
        logger.warning("kernels: compiled for this process alone, %s cannot be used: %s", cache, obstacle)
        return None
    return ctypes.CDLL(str(binary))


def _for_this_process(command: list[str]) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as scratch:  # the loaded file outlives its name
        return ctypes.CDLL(str(_compile(command, Path(scratch))))


def _compile(command: list[str], folder: Path) -> Path:
    binary = folder / "kernels.so"
    _output([*command, *map(str, SOURCES), "-o", str(binary)])
    binary.chmod(0o755)
    return binary


def _intact(binary: Path) -> bool:
    """Nobody else may have written the file, and it has the content that its name says."""
    return _only_ours(binary) and binary.stem.endswith(_digest(binary))


def _only_ours(path: Path) -> bool:
    status = path.lstat()
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return status.st_uid in (os.getuid(), 0) and not shared and not stat.S_ISLNK(status.st_mode)


def _digest(binary: Path) -> str:
    return hashlib.sha256(binary.read_bytes()).hexdigest()[:32]


def check_layouts(loaded: ctypes.CDLL) -> None:
    """Raise RuntimeError where a struct of the library and its twin in this module differ in size."""
    for name, struct in STRUCTS.items():
        size = getattr(loaded, f"size_of_{name}")
        size.restype = ctypes.c_int64
        if size() != ctypes.sizeof(struct):
            raise RuntimeError(
                f"{struct.__name__} has {ctypes.sizeof(struct)} bytes, the compiled one {size()}: "
                "the Python and the C++ source do not match"
            )


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} fails: {' '.join(done.stderr.split())}")
    return done.stdout
