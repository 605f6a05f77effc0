"""Which kernels serve the operators: the compiled ones where they can be had, else those in pure PyTorch.

The environment variable ACT_OPS chooses: ``auto`` (the default) compiles them at first use and says in one line where
that fails, ``require`` makes a failure an error, ``python`` keeps to pure PyTorch. Those for the CPU are loaded at
once, those for GPUs at the first call on one: a process that uses none neither compiles for it nor takes its memory.
"""
import contextlib
import functools
import importlib.util
import os
import pathlib
import threading
import warnings

import torch

from extensions import kernels
from extensions.compile import CompileError, fingerprint, library, nvcc_flags
from extensions.schemas import LIBRARY, NAMES
from utils.command import show_uncaught_in_one_line
from utils.errors import ConfigError

_loaded = {}  # kind of device → whether its compiled kernels serve
_lock = threading.RLock()


def backend(device="cpu"):
    """Return in a few words which kernels serve the operators on ``device``."""
    device = torch.device(device)
    if device.type == "cuda" and torch.cuda.is_available():
        _load_once(device)
    return {"cpu": "compiled C++", "cuda": "compiled CUDA"}[device.type] if _loaded.get(device.type) else "pure PyTorch"


def load():
    """Load the kernels for the CPU and arrange that the first call on a GPU loads those for it."""
    choice = _choice()
    if choice not in ("auto", "require", "python"):
        raise ConfigError(f"the environment variable ACT_OPS is '{choice}'; it must be auto, require or python")
    _load_once(torch.device("cpu"))
    if choice != "python" and torch.cuda.is_available():
        for name in NAMES:
            LIBRARY.impl(name, functools.partial(_first_call, name), "CUDA")


def _choice():
    return os.environ.get("ACT_OPS", "").strip() or "auto"


def _first_call(name, *arguments):
    """Load the kernels for the GPU that holds the arguments, and call the operator again."""
    _load_once(next(value.device for value in arguments if isinstance(value, torch.Tensor)))
    return getattr(torch.ops.act_ops, name)(*arguments)


def _load_once(device):
    """Load, or compile and load, and try the kernels for ``device``; where that fails pure PyTorch serves."""
    with _lock:
        if device.type in _loaded or _choice() == "python":
            return
        try:
            with _replacing():
                torch.ops.load_library(installed(device.type) or compiled(device.type))
            _loaded[device.type] = True
            _try(device)
        except (CompileError, OSError) as error:
            _fall_back(device, f"the operators for {device.type} could not be compiled ({error})", error)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            _fall_back(device, f"the compiled operators for {device.type} do not run on {device} ({reason})", error)


def _try(device):
    """Run a small kernel and wait for it: what was compiled for another GPU, or by too new an nvcc, fails only then."""
    cloud = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [3, 0, 0]]], device=device)
    picked = torch.ops.act_ops.furthest_point_sample(cloud, 3, False).tolist()
    if picked != [[0, 2, 1]]:
        raise RuntimeError(f"the furthest points are {picked}, not [[0, 2, 1]]")


def _fall_back(device, message, error):
    _loaded[device.type] = False
    with _replacing():
        for name in NAMES:
            LIBRARY.impl(name, getattr(kernels, name), device.type.upper(), allow_override=True)
    if _choice() == "require":
        raise ConfigError(f"{message}, and ACT_OPS=require asks for them") from error
    warnings.warn(f"{message}; pure PyTorch serves, more slowly. ACT_OPS=python silences this", stacklevel=3)


@contextlib.contextmanager
def _replacing():
    """Without torch's warning that a kernel takes another's place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")
        yield


def installed(device):
    """Return the library that ``pip install ./extensions`` left, if it was made from these very sources."""
    spec = importlib.util.find_spec("act_ops_kernels")
    if spec is None:
        return None
    path = pathlib.Path(spec.submodule_search_locations[0]) / f"act_ops_{device}-{fingerprint([])}.so"
    return path if path.is_file() else None


def compiled(device):
    """Return the library in the cache, compiled now if it is not there yet."""
    flags = ()
    if device == "cuda":
        flags = nvcc_flags([torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())])
    return library(device, pathlib.Path(torch.__file__).parent, torch.__version__, flags)


try:
    load()
except ConfigError:
    show_uncaught_in_one_line()
    raise
