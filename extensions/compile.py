"""Compile the C++ and CUDA kernels in ``csrc``, once for a machine, into a cache.

A library is named by a hash of all it depends on (sources, flags, compilers, torch), so a changed one is another
file. The lock is one of the operating system, which a killed process cannot leave behind.
"""
import contextlib
import hashlib
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor

SOURCES = pathlib.Path(__file__).resolve().parent / "csrc"
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # of torch 2.10, the oldest that requirements.txt admits

OLDEST = 60  # Pascal; before it there are no atomic sums of doubles

# as in torch.utils.cpp_extension; longer names first, since they are replaced one after the other
GENERATIONS = {
    "Maxwell+Tegra": "5.3", "Maxwell": "5.0 5.2+PTX", "Pascal": "6.0 6.1+PTX", "Volta+Tegra": "7.2",
    "Volta": "7.0+PTX", "Turing": "7.5+PTX", "Ampere+Tegra": "8.7", "Ampere": "8.0 8.6+PTX", "Ada": "8.9+PTX",
    "Hopper": "9.0+PTX", "Blackwell+Tegra": "11.0", "Blackwell": "10.0 10.3 12.0 12.1+PTX", "Rubin": "10.7+PTX",
}


class CompileError(Exception):
    """What stopped the compilation, in one line."""


def library(device, torch_root, torch_version, architectures=()):
    """Return the path of the compiled kernels for ``device`` (``cpu`` or ``cuda``), compiling them where needed.

    Args:
        torch_root: folder of the torch package.
        torch_version: its version; another one has another library.
        architectures: nvcc's architecture flags, see ``nvcc_flags``.
    """
    tools = [cxx(), nvcc()] if device == "cuda" else [cxx()]
    name = f"act_ops_{device}-{fingerprint(tools, torch_version, *architectures)}.so"
    folder = cache(name)
    path = folder / name
    if not path.is_file():
        with _locked(folder / f"{name}.lock"):
            if not path.is_file():  # another process may have compiled it meanwhile
                print(f"compiling the operators for {device} (some seconds, once)", file=sys.stderr, flush=True)
                compile_to(path, device, torch_root, architectures)
    return path


def cxx():
    """Return the command of the C++ compiler: that of the environment variable CXX, or the first found."""
    if os.environ.get("CXX", "").strip():
        try:
            shlex.split(os.environ["CXX"])
        except ValueError as error:
            raise CompileError(f"the environment variable CXX is '{os.environ['CXX']}': {error}") from error
        return os.environ["CXX"]
    found = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    if found is None:
        raise CompileError("no C++ compiler (g++ or clang++) was found")
    return found


def nvcc():
    """Return the command of nvcc; it knows where its headers and libraries are, so nothing else is looked for."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    found = next(filter(None, [*(shutil.which(f"{home}/bin/nvcc") for home in homes), shutil.which("nvcc")]), None)
    if found is None:
        raise CompileError("no nvcc was found; install the CUDA toolkit or set CUDA_HOME")
    return found


def nvcc_flags(capabilities):
    """Return nvcc's flags for devices of these compute capabilities, as (9, 0); none: for one of each generation.

    The newest is there as PTX too, which later GPUs compile for themselves. The environment variable
    TORCH_CUDA_ARCH_LIST ("8.0;9.0+PTX", "Ampere") goes before, in the meaning that torch's own extensions give it.
    """
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip()
    if listed not in ("", "native"):
        return list(dict.fromkeys(flag for entry in _entries(listed) for flag in _flags_of(entry)))
    known = _known_to_nvcc()
    first = {number // 10: number for number in sorted(known, reverse=True)}  # the oldest of each generation
    numbers = sorted({min(10 * major + minor, max(known)) for major, minor in capabilities} or first.values())
    return [flag for number in numbers for flag in _generate(number, ptx=number == numbers[-1])]


def _entries(listed):
    """Split what TORCH_CUDA_ARCH_LIST holds, names of generations replaced by what torch takes them for."""
    for name, meaning in GENERATIONS.items():
        listed = listed.replace(name, meaning)
    return listed.replace(";", " ").split()


def _flags_of(entry):
    parts = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", entry)
    if parts is None:
        raise CompileError(f"the environment variable TORCH_CUDA_ARCH_LIST names '{entry}'; architectures are written "
                           f"as 8.0, 9.0a, 9.0+PTX or {', '.join(GENERATIONS)}")
    major, minor, suffix, ptx = parts.groups()
    return _generate(f"{major}{minor}{suffix}", ptx)


def _generate(number, ptx):
    return [f"-gencode=arch=compute_{number},code={code}_{number}" for code in ("sm", *["compute"] * bool(ptx))]


def _known_to_nvcc():
    """Return the architectures that nvcc compiles for, as 90, from Pascal on."""
    result = subprocess.run([nvcc(), "--list-gpu-arch"], capture_output=True, text=True, check=False)
    known = [int(number) for number in re.findall(r"^compute_(\d+)$", result.stdout, re.MULTILINE)]
    if not known:
        raise CompileError(f"{nvcc()} --list-gpu-arch names no architecture")
    return [number for number in known if number >= OLDEST] or known


def fingerprint(tools, *parts):
    """Hash the sources, what the compilers say of themselves, the machine and ``parts``."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*.*")):
        digest.update(path.name.encode() + path.read_bytes())
    for tool in tools:
        version = subprocess.run([*shlex.split(tool), "--version"], capture_output=True, text=True, check=False)
        digest.update(f"{tool}\n{version.stdout}".encode())
    digest.update(repr((STABLE_ABI, platform.machine(), processor(), sys.platform, *parts)).encode())
    digest.update(pathlib.Path(__file__).read_bytes())
    return digest.hexdigest()[:16]


def processor():
    """Return what tells processors apart that need code of their own: the list of their instruction sets."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return " ".join(sorted(line.split(":", 1)[1].split()))
    return platform.processor()


def cache(name=""):
    """Return the first folder that holds the library ``name`` or can be written.

    It is that of ACT_OPS_CACHE, one in the user's cache, or one of temporary files. Where it is not the one that
    ACT_OPS_CACHE names, a warning says so.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    asked = os.environ.get("ACT_OPS_CACHE", "").strip()
    shared = f"{tempfile.gettempdir()}/act_ops-{os.getuid()}"
    for folder in filter(None, (asked, f"{home}/act_ops", shared)):
        with contextlib.suppress(OSError):
            if folder != shared and name and os.path.isfile(f"{folder}/{name}"):  # on a read-only disk, perhaps
                return pathlib.Path(folder)
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
            if folder == shared and os.lstat(folder).st_uid != os.getuid():
                raise CompileError(f"{folder} belongs to another user; set ACT_OPS_CACHE to a folder of your own")
            if os.access(folder, os.W_OK):
                if asked not in ("", folder):
                    warnings.warn(f"ACT_OPS_CACHE is {asked}, which cannot be written: {folder} is used", stacklevel=2)
                return pathlib.Path(folder)
    raise CompileError("no folder for compiled operators can be written; set ACT_OPS_CACHE to one")


@contextlib.contextmanager
def _locked(path):
    import fcntl

    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def compile_to(path, device, torch_root, architectures=()):
    """Compile the kernels for ``device`` into the shared library ``path``, which appears only when it is whole."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        commands, link = _commands(device, pathlib.Path(torch_root), pathlib.Path(folder), architectures)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_run, commands))
        _run(link)
        os.replace(f"{folder}/library.so", path)


def _commands(device, torch_root, folder, architectures):
    """Return the commands that compile each source and the one that links."""
    host = [*shlex.split(cxx()), "-fPIC", "-Wall"]
    stable = [STABLE_ABI, "-std=c++20", "-O2", f"-I{torch_root}/include"]
    # products are not fused into sums, so that every processor computes the same bits
    kernel = ["-std=c++17", "-O3"]
    cuda = ["-DACT_CUDA", "-DUSE_CUDA"] if device == "cuda" else []
    commands = [[*host, *stable, *cuda, "-c", f"{SOURCES}/register.cpp", "-o", f"{folder}/register.o"]]
    for source in sorted((SOURCES / device).glob("*.cpp" if device == "cpu" else "*.cu")):
        compiler = ([nvcc(), "-ccbin", shlex.split(cxx())[0], "-Xcompiler=-fPIC", "--fmad=false", *cuda, *architectures]
                    if device == "cuda" else [*host, *native(), "-ffp-contract=off", "-Wno-psabi"])
        commands.append([*compiler, *kernel, "-c", str(source), "-o", f"{folder}/{source.stem}.o"])
    objects = [command[-1] for command in commands]
    libraries = [f"-L{torch_root}/lib", "-ltorch_cpu"]
    if sys.platform == "darwin":
        libraries += ["-undefined", "dynamic_lookup"]
    linker = host
    if device == "cuda":
        linker, libraries = [nvcc(), "-ccbin", shlex.split(cxx())[0], *architectures], [*libraries, "-ltorch_cuda"]
    return commands, [*linker, "-shared", *objects, *libraries, "-o", f"{folder}/library.so"]


def native():
    """Return the flags for code of this very processor; a library for another one has another name."""
    return ["-march=native"] if platform.machine().lower() in ("x86_64", "amd64") else []


def _run(command):
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        first = next((line for line in lines if "error" in line), lines[-1])
        raise CompileError(f"{os.path.basename(command[0])} failed on {os.path.basename(command[-3])}: {first}")
