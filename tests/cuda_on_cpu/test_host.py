"""What surrounds the CUDA kernels: how they are compiled and launched."""
import os
import pathlib
import re
import subprocess

import pytest
import torch

from extensions import compile, kernels
from extensions.compile import CompileError

MEMORY_ALLOCATION = 2  # cudaErrorMemoryAllocation
CLOUD = torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(0))


def test_an_error_of_a_launch_is_raised_and_leaves_nothing(emulator):
    with pytest.raises(RuntimeError, match=r"gather_points: emulated CUDA: assertion failed: .*inverse\.cuh"):
        emulator.call("gather_points", torch.zeros(1, 2, 5), torch.tensor([[7]]))
    assert emulator.take_error() == 0
    assert emulator.call("furthest_point_sample", CLOUD, 4).equal(kernels.furthest_point_sample(CLOUD, 4))


def test_an_error_that_others_left_fails_no_operator(emulator):
    """As torch's allocator does where memory is short."""
    expected = kernels.chamfer(CLOUD, CLOUD + 1)
    emulator.leave_error(MEMORY_ALLOCATION)
    for result, wanted in zip(emulator.call("chamfer", CLOUD, CLOUD + 1), expected, strict=True):
        assert result.equal(wanted)
    assert emulator.take_error() == MEMORY_ALLOCATION  # it is still there for its owner


def test_memory_comes_from_torch_alone():
    """And nothing waits for the device: a kernel runs when its stream comes to it."""
    for path in (compile.SOURCES / "cuda").iterdir():
        called = set(re.findall(r"\bcuda[A-Z]\w+(?=\()", path.read_text()))
        assert called <= {"cudaLaunchKernelEx", "cudaGetLastError", "cudaGetErrorString"}, path.name
    assert "<<<" not in "".join(path.read_text() for path in (compile.SOURCES / "cuda").iterdir())


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """What would be run to compile the CUDA kernels, with some nvcc or other."""
    try:
        compile.nvcc()
    except CompileError:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "nvcc").write_text("#!/bin/sh\n")
        (tmp_path / "bin" / "nvcc").chmod(0o755)
        monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")
    compiling, link = compile._commands("cuda", pathlib.Path(torch.__file__).parent, tmp_path, compile.nvcc_flags([]))
    return [command for command in compiling if any(part.endswith(".cu") for part in command)], link


def test_products_are_not_fused_and_mathematics_is_exact(commands):
    """So that a GPU gives the bits that the CPU gives."""
    for command in commands[0]:
        assert "--fmad=false" in command
        assert not any(flag in part for part in command for flag in ("fast", "ftz", "prec-div", "prec-sqrt"))


def test_newer_gpus_find_ptx(commands):
    for command in (*commands[0], commands[1]):
        assert "-gencode=arch=compute_80,code=sm_80" in command
        assert "-gencode=arch=compute_90,code=compute_90" in command


def test_nvcc_puts_ptx_into_the_binary(monkeypatch, tmp_path):
    try:
        nvcc = compile.nvcc()
    except CompileError as error:
        pytest.skip(str(error))
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    flags = compile.nvcc_flags([(8, 0)])
    compiling, _ = compile._commands("cuda", pathlib.Path(torch.__file__).parent, tmp_path, flags)
    command = next(command for command in compiling if command[0] == nvcc)
    said = subprocess.run([*command, "--dryrun"], capture_output=True, text=True, check=True).stderr
    embedded = next(line for line in said.splitlines() if re.search(r"\bfatbinary\b", line))
    assert re.search(r"kind=ptx,sm=80", embedded)
    assert re.search(r"kind=elf,sm=80", embedded)
    assert os.path.basename(nvcc) == "nvcc"
