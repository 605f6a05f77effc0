"""Do the tests see faults? Plant them in the CUDA kernels one at a time and run the tests on each, emulated.

``python tests/cuda_on_cpu/mutants.py`` prints a table, for docs/PERFORMANCE.md.
"""
import argparse
import os
import pathlib
import sys
import tempfile
from typing import NamedTuple

import pytest
import yaml

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

import emulated  # noqa: E402 - the script's folder is on the path, the project's is not

from extensions import compile  # noqa: E402


class Mutant(NamedTuple):
    """A fault: in ``file`` the text ``old`` becomes ``new``; ``tests`` should see it."""
    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = [Mutant(**entry) for entry in yaml.safe_load((HERE / "mutants.yaml").read_text())]


def planted(mutant):
    """Return the file's text with the fault in it."""
    text = (compile.SOURCES / "cuda" / mutant.file).read_text()
    if mutant.old not in text:
        sys.exit(f"error: {mutant.name}: its text is not in {mutant.file}")
    return text.replace(mutant.old, mutant.new)


def seen_by(mutant, folder):
    """Return the error of the first test that fails with the fault; None: all pass."""
    try:
        library = emulated.library(folder, {mutant.file: planted(mutant)})
    except RuntimeError as error:
        return f"does not compile: {str(error).splitlines()[1]}"
    output = pathlib.Path(folder) / "output.txt"
    if not passes(library, f"({mutant.tests}) and not test_emulator", output):
        lines = [line[1:].strip() for line in output.read_text().splitlines() if line.startswith("E  ")]
        return next((line for line in lines if "emulated CUDA" in line), (lines or ["the tests end abnormally"])[0])
    return None


def shown(error):
    """Return an error in a few words."""
    if error.startswith(("AssertionError: Tensor-likes", "assert False")):
        return "a wrong result"
    return error.split("emulated CUDA: ")[-1].split(", block")[0][:110].replace("|", "/")


def passes(library, tests, output):
    """Run the tests that ``tests`` selects in a process of its own, which need not import torch again."""
    child = os.fork()
    if child == 0:
        with open(output, "w") as file:
            os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
        os.environ["EMULATED_LIBRARY"] = str(library)
        os._exit(int(pytest.main(["-x", "-p", "no:cacheprovider", str(HERE), "-k", tests]) != 0))
    return os.waitpid(child, 0)[1] == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="those whose name holds this")
    word = parser.parse_args().only
    missed = 0
    print("| planted fault | seen as |\n| --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for mutant in MUTANTS:
            if word not in mutant.name:
                continue
            error = seen_by(mutant, folder)
            missed += error is None
            print(f"| {mutant.name} | {'**not seen**' if error is None else shown(error)} |", flush=True)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
