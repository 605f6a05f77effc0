"""Every test of the operators runs on each backend: the pure-PyTorch kernels and, where they are, the compiled ones."""
import warnings

import pytest
import torch

import extensions
from extensions import kernels
from extensions.schemas import NAMES


@pytest.fixture(scope="session", autouse=True, params=["python", "compiled"])
def backend(request):
    """Put the pure-PyTorch kernels back before the compiled ones, or leave those."""
    if request.param == "compiled":
        if extensions.backend() == "pure PyTorch":
            pytest.skip("the compiled operators are not there: no compiler, or ACT_OPS=python")
        yield request.param
        return
    with torch.library._scoped_library("act_ops", "IMPL") as library, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")
        for name in NAMES:
            library.impl(name, getattr(kernels, name), "CPU")
        yield request.param
