"""The CUDA kernels of extensions/csrc/cuda on a CPU: compile them with the host's compiler, load them, call them.

``emulator/`` says what is emulated and what ends a launch with an error. The kernels are the sources unchanged, but for
``__shared__``, which C++ has nothing like: a line of it becomes a reference to an array that the emulator keeps.
They are registered under a key of torch that nothing else uses, and called past its choice of a key.
"""
import ctypes
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from extensions import compile

HERE = pathlib.Path(__file__).resolve().parent
EMULATOR = HERE / "emulator"
KEY = torch._C.DispatchKeySet(torch._C.DispatchKey.PrivateUse1)
OPERATORS = ("furthest_point_sample", "knn", "chamfer", "chamfer_backward", "gather_points", "gather_points_backward",
             "group_points", "group_points_backward", "ball_query", "three_nn", "three_interpolate",
             "three_interpolate_backward")  # those that have CUDA kernels

TORCH = pathlib.Path(torch.__file__).parent
STABLE = [compile.STABLE_ABI, f"-isystem{TORCH}/include"]
SHARED = re.compile(r"__shared__\s+([^;]+?)\s+(\w+)((?:\[[^\]]*\])+);")
COMMON = ["-std=c++20", "-fPIC", "-O1", "-g1", "-ffp-contract=off", "-DACT_CUDA", "-DUSE_CUDA", f"-I{EMULATOR}",
          "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-unused-parameter"]
# memory.cpp defines what these make the kernels call
CHECKED = ["-x", "c++", "-fsanitize=thread", "-fsanitize=bounds,signed-integer-overflow", "-Wno-maybe-uninitialized"]


@pytest.fixture(scope="session")
def emulator():
    """The CUDA kernels, compiled for the CPU, or the library that the mutation check names."""
    if compiler() is None:
        pytest.skip("no g++, which the emulation of CUDA needs")
    return Emulator(os.environ.get("EMULATED_LIBRARY") or library())


def compiler():
    """Return g++, whose instrumentation the emulator takes the place of; None where there is none."""
    return shutil.which(os.environ.get("EMULATOR_CXX", "g++"))


def rewritten(text):
    """Replace shared arrays by references to the emulator's; lines stay where they are."""
    return SHARED.sub(r"auto& \2 = emulator::shared<\1\3>(__COUNTER__);", text)


def library(folder=None, changed=None):
    """Compile the kernels and return the library, which is kept for the next call with the same sources.

    Args:
        folder: where to keep it, and what its sources are compiled to; by default the library alone, with the other
            compiled operators.
        changed: texts that take the place of source files, by name: the mutation check's.
    """
    changed = changed or {}
    texts = {path.relative_to(compile.SOURCES): changed.get(path.name, path.read_text())
             for path in sorted(compile.SOURCES.rglob("*")) if path.is_file() and path.parent.name != "cpu"}
    shared = _hash(torch.__version__, compiler(), *(text for path, text in texts.items() if path.suffix != ".cu"),
                   *(path.read_text() for path in (pathlib.Path(__file__), *sorted(EMULATOR.iterdir()))))
    kept = pathlib.Path(folder or compile.cache())
    result = kept / f"act_ops_emulated-{_hash(shared, texts)}.so"
    if result.is_file():
        return result
    with tempfile.TemporaryDirectory(dir=kept) as build:
        for path, text in texts.items():
            copy = pathlib.Path(build) / path
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(rewritten(text) if path.parent.name == "cuda" else text)
        # the emulator first: of a template that several files have, the linker takes the first, which is not checked
        sources = {EMULATOR / "emulator.cpp": [], EMULATOR / "memory.cpp": [], EMULATOR / "torch_shim.cpp": STABLE,
                   pathlib.Path(build) / "register.cpp": [*STABLE, "-DACT_KEY=PrivateUse1"]}
        sources |= {path: CHECKED for path in sorted(pathlib.Path(build).glob("cuda/*.cu"))}
        objects = {path: f"{folder or build}/{path.stem}-{_hash(shared, path.read_text())}.o" for path in sources}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda path: compile_source(path, sources[path], objects[path]),
                          [path for path in sources if not os.path.isfile(objects[path])]))
        link(objects.values(), f"{build}/library.so")
        os.replace(f"{build}/library.so", result)
    return result


def _hash(*parts):
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def compile_source(path, flags, out):
    _run([*COMMON, *flags, "-c", str(path), "-o", out])


def link(objects, out):
    """Link so that what the emulator defines stands before what torch does."""
    _run(["-shared", "-Wl,-Bsymbolic", *objects, f"-L{TORCH}/lib", "-ltorch_cpu", "-ldl", "-o", str(out)])


def _run(arguments):
    result = subprocess.run([compiler(), *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{compiler()} {' '.join(arguments)}\n{result.stderr}")


class Emulator:
    """The loaded kernels. ``order`` is that of threads and blocks: 0 and 1 first and last come first, else a seed."""

    def __init__(self, path):
        self.path = path
        torch.ops.load_library(path)
        self._functions = ctypes.CDLL(str(path))
        self._functions.emulator_counts.restype = ctypes.c_char_p

    def call(self, operator, *arguments):
        """Call ``operator`` on CPU tensors; an error of a kernel names its line."""
        try:
            return getattr(torch.ops.act_ops, operator).default.redispatch(KEY, *arguments)
        except RuntimeError as error:
            raise RuntimeError(self._with_line(str(error))) from None

    def _with_line(self, message):
        """Replace an address by what addr2line makes of it."""
        found = re.search(r"at (0x[0-9a-f]+)", message)
        if not found or not shutil.which("addr2line"):
            return message
        lines = subprocess.run(["addr2line", "-e", self.path, found[1]], capture_output=True, text=True, check=False)
        return message.replace(found[0], pathlib.PurePath(lines.stdout.split(" ")[0].strip()).name)

    def set_order(self, order):
        self._functions.emulator_set_order(order)

    def leave_error(self, error):
        """As if somebody had called CUDA before, in vain, and not taken the error."""
        self._functions.emulator_leave_error(error)

    def take_error(self):
        return self._functions.emulator_take_error()

    def count(self, accesses=True):
        """Forget what was counted; count launches from now on and, with ``accesses``, what they access."""
        self._functions.emulator_count(int(accesses))

    def counts(self):
        """Return a dict of counts by kernel, as ``search<float, 1>``."""
        names = self._names()
        base = self._base()
        found = json.loads(self._functions.emulator_counts())
        return {names[int(address) - base]: counts for address, counts in found.items()}

    def kernels(self):
        """Return the names of all kernels of the library, whether they ran or not."""
        return set(self._names().values())

    def _names(self):
        """Return kernels by their offset in the library."""
        declared = "|".join(name for path in (compile.SOURCES / "cuda").iterdir() for name in re.findall(
            r"__global__\s+void\s+(?:__launch_bounds__\(\w+\)\s+)?(\w+)\(", path.read_text()))
        table = subprocess.run(["nm", "-C", self.path], capture_output=True, text=True, check=True).stdout
        pattern = rf"^([0-9a-f]+) t .*act::\(anonymous namespace\)::((?:{declared})(?:<[^()]*>)?)\("
        return {int(offset, 16): name for offset, name in re.findall(pattern, table, re.MULTILINE)}

    def _base(self):
        """Return where the library lies in memory."""
        table = subprocess.run(["nm", "-D", self.path], capture_output=True, text=True, check=True).stdout
        offset = int(re.search(r"^([0-9a-f]+) T emulator_counts$", table, re.MULTILINE)[1], 16)
        return ctypes.cast(self._functions.emulator_counts, ctypes.c_void_p).value - offset
