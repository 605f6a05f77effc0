"""Building the compiled operators, and what happens where they cannot be built."""
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import torch
import torch.utils.cpp_extension

import extensions
from extensions import compile
from extensions.compile import CompileError

pytestmark = pytest.mark.slow  # compiles

ROOT = pathlib.Path(__file__).resolve().parents[2]
TORCH = pathlib.Path(torch.__file__).parent
SHOW = "import extensions; print(extensions.backend())"

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler")


@pytest.fixture(autouse=True)
def once(backend):
    """These tests do not depend on the backend."""
    if backend != "compiled":
        pytest.skip("once is enough")


def start(code, **environment):
    """Start Python with ``code`` in the project's folder."""
    variables = {**os.environ, "ACT_OPS": "auto", **environment}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=variables,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(code, **environment):
    process = start(code, **environment)
    out, err = process.communicate(timeout=300)
    return process.returncode, out.strip(), err


@needs_compiler
def test_one_process_compiles_and_the_others_wait(tmp_path):
    processes = [start(SHOW, ACT_OPS_CACHE=str(tmp_path), ACT_OPS="require") for _ in range(3)]
    results = [process.communicate(timeout=300) for process in processes]
    assert [out.strip() for out, _ in results] == ["compiled C++"] * 3
    assert sum("compiling the operators for cpu" in err for _, err in results) == 1
    libraries = [path.name for path in tmp_path.iterdir() if path.suffix == ".so"]
    assert len(libraries) == 1
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]  # nothing half-done is left
    status, out, err = run(SHOW, ACT_OPS_CACHE=str(tmp_path))
    assert (status, out, "compiling" in err) == (0, "compiled C++", False)


def test_python_kernels_by_choice():
    assert run(SHOW, ACT_OPS="python") == (0, "pure PyTorch", "")


def test_without_a_compiler(tmp_path):
    environment = {"ACT_OPS_CACHE": str(tmp_path), "CXX": "/bin/false"}
    status, out, err = run(SHOW, **environment)
    assert (status, out) == (0, "pure PyTorch")
    assert "the operators for cpu could not be compiled (false failed on" in err
    assert not list(tmp_path.glob("*.so"))
    command = (f"import sys; sys.argv = ['main.py', '--config', '{ROOT}/cfgs/demo/pretrain.yaml']; "
               "import runpy; runpy.run_path('main.py', run_name='__main__')")
    status, _, err = run(command, ACT_OPS="require", **environment)
    assert status == 2
    assert err.strip().startswith("compiling the operators for cpu (some seconds, once)\n"
                                  "error: the operators for cpu could not be compiled (false failed on")
    assert err.strip().endswith("and ACT_OPS=require asks for them")


def test_a_wrong_choice():
    status, _, err = run("import runpy, sys; sys.argv = ['main.py', '--config', 'cfgs/demo/pretrain.yaml']; "
                         "runpy.run_path('main.py', run_name='__main__')", ACT_OPS="fast")
    assert status == 2
    assert err.strip() == "error: the environment variable ACT_OPS is 'fast'; it must be auto, require or python"


@needs_compiler
def test_a_library_belongs_to_one_torch_and_one_compiler(monkeypatch):
    names = {compile.fingerprint(["true"], "2.10"), compile.fingerprint(["true"], "2.11"),
             compile.fingerprint([compile.cxx()], "2.10"), compile.fingerprint(["true"], "2.10", "-arch=sm_90")}
    assert len(names) == 4
    assert compile.fingerprint(["true"], "2.10") in names


def test_a_cache_that_cannot_be_written_is_passed_over(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ACT_OPS_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with pytest.warns(UserWarning, match=r"ACT_OPS_CACHE is .*below, which cannot be written: .*home/act_ops is used"):
        assert compile.cache() == tmp_path / "home" / "act_ops"


def test_a_library_in_a_cache_that_cannot_be_written_is_used(monkeypatch, tmp_path):
    """As in an image of a container, whose file system may be read-only."""
    monkeypatch.setenv("ACT_OPS_CACHE", str(tmp_path))
    monkeypatch.setattr(compile, "cxx", lambda: "true")
    monkeypatch.setattr(compile, "nvcc", lambda: pytest.fail("nvcc is not needed for the CPU"))
    monkeypatch.setattr(compile.os, "access", lambda *_: False)
    path = tmp_path / f"act_ops_cpu-{compile.fingerprint(['true'], '2.10')}.so"
    path.write_bytes(b"")
    assert compile.library("cpu", TORCH, "2.10") == path


def test_a_compiler_that_is_no_command(monkeypatch):
    monkeypatch.setenv("CXX", "'g++")
    with pytest.raises(CompileError, match="environment variable CXX is ''g\\+\\+': No closing quotation"):
        compile.cxx()


@pytest.fixture
def nvcc_12(monkeypatch, tmp_path):
    """An nvcc of CUDA 12, as far as it says which architectures it knows."""
    path = tmp_path / "bin" / "nvcc"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\nprintf 'compute_%s\\n' 50 52 60 61 70 75 80 86 89 90 90a\n")
    path.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)


def numbers(flags):
    """What comes of nvcc's flags, as sm_80 for a GPU's code and compute_80 for PTX."""
    assert all(flag.startswith("-gencode=arch=compute_") for flag in flags)
    return [flag.split("code=")[-1] for flag in flags]


@pytest.mark.usefixtures("nvcc_12")
def test_architectures(monkeypatch):
    assert compile.nvcc_flags([(9, 0), (8, 0), (9, 0)]) == [
        "-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_90,code=compute_90"]
    # what nvcc does not know yet runs the PTX of the newest that it knows
    assert numbers(compile.nvcc_flags([(8, 0), (12, 0)])) == ["sm_80", "sm_90", "compute_90"]
    # without a GPU one of each generation from Pascal on
    assert numbers(compile.nvcc_flags([])) == ["sm_60", "sm_70", "sm_80", "sm_90", "compute_90"]
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "native")
    assert numbers(compile.nvcc_flags([(8, 6)])) == ["sm_86", "compute_86"]


@pytest.mark.usefixtures("nvcc_12")
@pytest.mark.parametrize(("listed", "expected"), [
    ("7.5;8.6+PTX", ["sm_75", "sm_86", "compute_86"]), ("8.0 9.0a", ["sm_80", "sm_90a"]),
    ("Ampere", ["sm_80", "sm_86", "compute_86"]), ("Ampere+Tegra;Turing", ["sm_87", "sm_75", "compute_75"]),
    ("10.0+PTX", ["sm_100", "compute_100"]), ("8.6;Ampere", ["sm_86", "sm_80", "compute_86"])])
def test_listed_architectures(monkeypatch, listed, expected):
    """As torch's own extensions understand the variable."""
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
    found = compile.nvcc_flags([(9, 0)])
    assert numbers(found) == expected
    theirs = torch.utils.cpp_extension._get_cuda_arch_flags()
    assert sorted(found) == sorted(theirs)


@pytest.mark.usefixtures("nvcc_12")
@pytest.mark.parametrize("listed", ["Ampeer", "80", "8.0+ptx", "sm_80", "8.0,9.0"])
def test_architectures_that_are_none(monkeypatch, listed):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
    with pytest.raises(CompileError, match="environment variable TORCH_CUDA_ARCH_LIST names '") as error:
        compile.nvcc_flags([(9, 0)])
    assert "\n" not in str(error.value)


LOADED_BUT_BROKEN = """
import torch
load, library = torch.ops.load_library, torch.library.Library("act_ops", "FRAGMENT")
def load_broken(path):
    load(path)
    def fail(*arguments): raise RuntimeError("no kernel image is available for execution on the device\\nmore")
    library.impl("furthest_point_sample", fail, "CPU", allow_override=True)
torch.ops.load_library = load_broken
import extensions
from extensions import ops
print(extensions.backend(), ops.furthest_point_sample(torch.eye(3)[None], 3).tolist())
"""


@needs_compiler
def test_a_library_that_loads_and_does_not_run():
    """As one that was compiled for another GPU, or by an nvcc newer than the driver."""
    status, out, err = run(LOADED_BUT_BROKEN)
    assert (status, out) == (0, "pure PyTorch [[0, 1, 2]]")
    assert ("the compiled operators for cpu do not run on cpu (no kernel image is available for execution on the "
            "device); pure PyTorch serves, more slowly.") in err
    assert "more\n" not in err.replace("more slowly", "")
    status, _, err = run(LOADED_BUT_BROKEN, ACT_OPS="require")
    assert status
    assert "do not run on cpu (no kernel image is available for execution on the device), and ACT_OPS=require" in err


DEFERRED = """
import torch
torch.cuda.is_available = lambda: True
torch.cuda.get_device_capability = lambda index=0: (8, 0)
import extensions
from extensions import backends, ops
print(extensions.backend())
def on_gpu(name, *arguments):
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    return getattr(torch.ops.act_ops, name).default.redispatch(keys, *arguments)
tried = []
backends._load_once = lambda device: tried.append(device)
print(on_gpu("furthest_point_sample", torch.eye(3)[None], 3).tolist(), tried)
"""


@needs_compiler
def test_kernels_for_a_gpu_are_loaded_when_one_is_used():
    """A process that computes on the CPU neither compiles for GPUs nor takes their memory."""
    assert run(DEFERRED) == (0, "compiled C++\n[[0, 1, 2]] [device(type='cpu')]", "")


@needs_compiler
def test_a_compiler_error_is_one_line(monkeypatch, tmp_path):
    sources = tmp_path / "csrc"
    shutil.copytree(compile.SOURCES, sources)
    (sources / "cpu" / "knn.cpp").write_text("int broken(\n")
    monkeypatch.setattr(compile, "SOURCES", sources)
    with pytest.raises(CompileError, match=r"failed on .*knn.cpp: .*error: ") as error:
        compile.compile_to(tmp_path / "library.so", "cpu", TORCH)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "library.so").exists()


@needs_compiler
def test_cuda_sources_compile(tmp_path):
    """On a machine without a GPU too, so that they cannot rot unseen."""
    try:
        compile.nvcc()
    except CompileError as error:
        pytest.skip(str(error))
    if torch.version.cuda is None:
        pytest.skip("this torch has no CUDA libraries to link with")
    compile.compile_to(tmp_path / "library.so", "cuda", TORCH, compile.nvcc_flags([(8, 0)]))
    symbols = (tmp_path / "library.so").read_bytes()
    assert b"furthest_point_sample" in symbols
    assert b"sm_80" in symbols


def test_backend_is_named():
    assert extensions.backend() == "compiled C++"
    assert extensions.backend("cpu") == extensions.backend(torch.device("cpu"))
    if not torch.cuda.is_available():
        assert extensions.backend("cuda") == "pure PyTorch"
