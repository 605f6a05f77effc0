"""What tests in front of this one must have put back."""
import pytest
import torch

import extensions  # noqa: F401 - registers the operators
from extensions.schemas import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_no_kernel_of_a_test_serves_others(name):
    """tests/extensions puts kernels before the compiled ones; left there, they would serve all tests that follow."""
    assert "CPU (inactive)" not in torch._C._dispatch_dump(f"act_ops::{name}")
