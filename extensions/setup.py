"""Compile the operators ahead of time, ``pip install ./extensions``, for machines without a compiler.

The kernels are compiled against the torch of the environment that pip installs into. CUDA kernels are added where
that torch has CUDA and nvcc is found, for the architectures of TORCH_CUDA_ARCH_LIST, of the GPUs present, or one of
each generation.
"""
import json
import pathlib
import subprocess
import sys

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import compile  # noqa: E402 - the script's folder is not on the path of an isolated build

PACKAGE = "act_ops_kernels"
# -I: pip builds in an isolated environment; torch lies in the one around it
ASK = [sys.executable, "-I", "-c", """
import json, pathlib, torch
print(json.dumps([str(pathlib.Path(torch.__file__).parent), torch.version.cuda is not None,
                  [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]]))"""]


class Build(build_py):
    """Put the compiled libraries into the package."""

    def run(self):
        super().run()
        asked = subprocess.run(ASK, capture_output=True, text=True, check=False)
        if asked.returncode:
            sys.exit("error: the operators need torch: pip install -r requirements.txt first")
        root, cuda, capabilities = json.loads(asked.stdout)
        folder = pathlib.Path(self.build_lib) / PACKAGE
        folder.mkdir(parents=True, exist_ok=True)
        name = compile.fingerprint([])
        compile.compile_to(folder / f"act_ops_cpu-{name}.so", "cpu", root)
        try:
            cuda = cuda and compile.nvcc()
        except compile.CompileError:
            cuda = False
        if cuda:
            compile.compile_to(folder / f"act_ops_cuda-{name}.so", "cuda", root, compile.nvcc_flags(capabilities))


class Compiled(Distribution):
    """A distribution that belongs to one platform."""

    def has_ext_modules(self):
        return True


if __name__ == "__main__":
    setup(name="act-ops-kernels", version="0.1.0", packages=[PACKAGE], package_dir={PACKAGE: "act_ops_kernels"},
          cmdclass={"build_py": Build}, distclass=Compiled)
