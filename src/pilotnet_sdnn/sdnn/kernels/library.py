"""The compiled C++ source: built once per machine, kept in the user's cache, checked at every load."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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
        *((name, ctypes.c_int64) for name in ("sequences", "frames", "neurons", "channels", "batch")),
        *((name, ctypes.c_float) for name in ("threshold", "tau_grad", "scale_grad", "scale")),
        *((name, ctypes.c_int32) for name in ("has_dendrite", "corrected", "threads")),
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


STRUCTS: dict[str, type[ctypes.Structure]] = {
    "Neurons": NeuronsStruct,
    "State": StateStruct,
    "Convolution": ConvolutionStruct,
}
CPP_TYPES = {ctypes.c_int64: "int64_t", ctypes.c_int32: "int32_t", ctypes.c_float: "float"}
RETURN_NUMBERS = ("activation_gradients", "sensitivities", "inner_product")


class Source(NamedTuple):
    """C++ files, and the structs that Python passes to their functions."""

    files: Sequence[Path]
    headers: Sequence[Path]  # all in one folder
    structs: Mapping[str, type[ctypes.Structure]]  # by their names in C++
    flags: Sequence[str] = ()  # besides FLAGS

    def layout_checks(self) -> str:
        """C++ that compiles only where its structs have the fields of `structs`, of the same types, in the same places.

        It is compiled with the source and part of the cache's key, so a library that loads has passed it.
        """
        lines = ["#include <cstddef>", "#include <type_traits>", *(f'#include "{file.name}"' for file in self.headers)]
        for name, struct in self.structs.items():
            size = ctypes.sizeof(struct)
            lines.append(f'static_assert(sizeof({name}) == {size}, "{struct.__name__} has another size");')
            for field, kind in struct._fields_:  # type: ignore[misc]
                member = f"decltype({name}::{field})"
                same_type = f"std::is_same_v<{member}, {CPP_TYPES[kind]}>" if kind in CPP_TYPES else _POINTER(member)
                same_place = f"offsetof({name}, {field}) == {getattr(struct, field).offset}"
                lines.append(f'static_assert({same_type} && {same_place}, "{struct.__name__}.{field} differs");')
        return "\n".join(lines)


_POINTER = "std::is_pointer_v<{}>".format


@functools.cache
def library() -> ctypes.CDLL:
    """The kernels, loaded by `load`."""
    loaded = load(Source(SOURCES, HEADERS, STRUCTS))
    for function in RETURN_NUMBERS:
        getattr(loaded, function).restype = ctypes.c_double
    loaded.keep_freed_memory()
    return loaded


def load(source: Source) -> ctypes.CDLL:
    """The compiled source; compiled first if this machine has not done so before.

    The user's cache names it by all that it depends on: source, flags, compiler and CPU. A folder or file that another
    user may have written is not used, nor is a file that has changed since it was compiled. Without a usable cache the
    library is compiled for this process alone.

    Raises:
        RuntimeError: there is no compiler, it fails, or the structs differ from those of the source.
        OSError: the library cannot be written or loaded anywhere.
    """
    command = [*_compiler(), *FLAGS, *source.flags]
    target = _output([*command, "-dM", "-E", "-x", "c++", os.devnull])  # names the compiler and the CPU's instructions
    contents = [path.read_text(encoding="utf-8") for path in (*source.headers, *source.files)]
    parts = [*command, target, *contents, source.layout_checks()]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return _from_cache(command, source, key) or _for_this_process(command, source)


def _compiler() -> list[str]:
    """The command of the compiler: `c++`, or what CXX names, which may have several words (`ccache g++`).

    Raises:
        RuntimeError: there is none.
    """
    named = os.environ.get("CXX", "")
    try:
        program, *arguments = shlex.split(named) or ["c++"]
    except ValueError as error:
        raise RuntimeError(f"CXX is {named!r}: {error}") from None
    path = shutil.which(program)
    if path is None and named:
        raise RuntimeError(f"CXX is {named!r}, but there is no program {program!r}; correct or unset it")
    if path is None:
        raise RuntimeError(
            "there is no C++ compiler: install one (Debian: apt install g++; macOS: xcode-select --install)"
        )
    return [path, *arguments]


def _from_cache(command: list[str], source: Source, key: str) -> ctypes.CDLL | None:
    """The library that the user's cache holds, compiled into it if need be; None without a usable cache."""
    cache = user_cache() / "kernels"
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)  # whatever the umask
        if not _only_ours(cache):
            logger.warning("kernels: %s is not used: another user owns it or may write to it", cache)
            return None
        binary = next((path for path in cache.glob(f"{key}-*.so") if _intact(path)), None)
        if binary is None:
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                fresh = _compile(command, source, Path(scratch))
                binary = cache / f"{key}-{_digest(fresh)}.so"
                fresh.replace(binary)  # atomic: another process may be compiling it too
            logger.info("kernels: compiled %s", binary)
        return ctypes.CDLL(str(binary))
    except OSError as obstacle:
        logger.warning(
            "kernels: compiled for this process alone, %s cannot be used (XDG_CACHE_HOME names another place): %s",
            cache,
            obstacle,
        )
        return None


def _for_this_process(command: list[str], source: Source) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as scratch:  # the library stays loaded after its file is deleted
        return ctypes.CDLL(str(_compile(command, source, Path(scratch))))


def _compile(command: list[str], source: Source, scratch: Path) -> Path:
    checks, binary = scratch / "layout_checks.cpp", scratch / "kernels.so"
    checks.write_text(source.layout_checks(), encoding="utf-8")
    include = f"-I{source.headers[0].parent}"
    _output([*command, include, *map(str, source.files), str(checks), "-o", str(binary)])
    binary.chmod(0o700)
    return binary


def _intact(binary: Path) -> bool:
    """No other user may have written the file, and its content has the digest in its name."""
    return _only_ours(binary) and binary.stem.endswith(_digest(binary))


def _only_ours(path: Path) -> bool:
    status = path.lstat()
    writable_by_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return status.st_uid in (os.getuid(), 0) and not writable_by_others and not stat.S_ISLNK(status.st_mode)


def _digest(binary: Path) -> str:
    return hashlib.sha256(binary.read_bytes()).hexdigest()[:32]


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.splitlines()
        reason = next((line[line.index("error:") :] for line in lines if "error:" in line), " ".join(lines[:1]))
        raise RuntimeError(f"{command[0]} fails: {reason}")
    return done.stdout
