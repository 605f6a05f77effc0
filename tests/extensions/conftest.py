"""Every test of the operators runs on each backend: the kernels in pure PyTorch, the compiled ones and, emulated on the
CPU, those for CUDA."""
import functools
import warnings

import emulated
import pytest
import torch
from emulated import emulator  # noqa: F401 - a fixture

import extensions
from extensions import kernels
from extensions.schemas import NAMES


def pytest_collection_modifyitems(items):
    """Leave out the emulated backend where there is no CUDA kernel to run."""
    items[:] = [item for item in items if not _beyond_emulation(item)]


def _beyond_emulation(item):
    values = item.callspec.params if hasattr(item, "callspec") else {}
    if values.get("backend") != "emulated":
        return False
    operator = values["sample"].operator if "sample" in values else values.get("operator", emulated.OPERATORS[0])
    elsewhere = item.path.name in ("test_backends.py", "test_op_cuda.py")
    # tests/cuda_on_cpu takes every limit at a size that does not take minutes
    return operator not in emulated.OPERATORS or elsewhere or item.originalname == "test_larger_sizes"


# of a session's scope the last one would serve all tests that follow
@pytest.fixture(scope="module", autouse=True, params=["python", "compiled", "emulated"])
def backend(request):
    """Put the kernels in pure PyTorch or the emulated ones before the compiled ones, or leave those."""
    if request.param == "compiled":
        if extensions.backend() == "pure PyTorch":
            pytest.skip("the compiled operators are not there: no compiler, or ACT_OPS=python")
        yield request.param
        return
    if request.param == "emulated":
        call = request.getfixturevalue("emulator").call
        serving = {name: functools.partial(call, name) for name in emulated.OPERATORS}
    else:
        serving = {name: getattr(kernels, name) for name in NAMES}
    with torch.library._scoped_library("act_ops", "IMPL") as library, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")
        for name, function in serving.items():
            library.impl(name, function, "CPU")
        yield request.param
