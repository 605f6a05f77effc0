"""Which kernels serve the operators: the compiled ones where they can be had, else those in pure PyTorch.

The environment variable ACT_OPS chooses: ``auto`` (the default) compiles them at first use and says in one line where
that fails, ``require`` makes a failure an error, ``python`` keeps to pure PyTorch.
"""
import importlib.util
import os
import pathlib
import warnings

import torch

from extensions.compile import CompileError, fingerprint, library, nvcc_flags
from utils.command import show_uncaught_in_one_line
from utils.errors import ConfigError

_loaded = {}  # device → whether its compiled kernels serve


def backend(device="cpu"):
    """Return in a few words which kernels serve the operators on ``device``."""
    kind = torch.device(device).type
    return {"cpu": "compiled C++", "cuda": "compiled CUDA"}[kind] if _loaded.get(kind) else "pure PyTorch"


def load():
    """Load, or compile and load, the kernels of every device that this process can use."""
    choice = os.environ.get("ACT_OPS", "").strip() or "auto"
    if choice not in ("auto", "require", "python"):
        raise ConfigError(f"the environment variable ACT_OPS is '{choice}'; it must be auto, require or python")
    if choice == "python":
        return
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        try:
            torch.ops.load_library(installed(device) or compiled(device))
            _loaded[device] = True
        except (CompileError, OSError) as error:
            message = f"the operators for {device} could not be compiled ({error})"
            if choice == "require":
                raise ConfigError(f"{message}, and ACT_OPS=require asks for them") from error
            warnings.warn(f"{message}; pure PyTorch serves, more slowly. ACT_OPS=python silences this", stacklevel=2)


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
