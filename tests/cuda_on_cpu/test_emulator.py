"""The emulator sees what CUDA leaves undefined: kernels with one fault each, and some without."""
import ctypes

import emulated
import pytest

FAULTS = {
    "divergent_barrier": "a thread ends while others wait|__syncthreads after threads of the block have ended",
    "different_barriers": "threads meet at different __syncthreads",
    "lane_that_left": "the mask names lanes that have ended|a lane ends that others of its warp wait for",
    "lane_outside_the_mask": "a lane reads another outside the mask",
    "different_operations": "lanes meet at different operations",
    "uninitialised_shared": "uninitialised shared memory is read",
    "shared_without_barrier": "uninitialised shared memory is read|a race in shared memory",
    "shuffle_is_no_barrier": "a race in shared memory with a write",
    "struct_by_value": "uninitialised shared memory is read|a race in shared memory",
    "sum_without_atomic": "a race in global memory",
    "behind_the_end": "a write to an input",  # which lies behind
    "before_the_beginning": "a write outside of all tensors and shared arrays",
    "index_outside": "index 4 outside of an array, faulty.cu:",
    "int_overflow": "a sum overflows, faulty.cu:",
    "writes_an_input": "a write to an input",
    "reads_an_output": "uninitialised global memory is read",
    "fails_an_assertion": "assertion failed: threadIdx.x < 50, faulty.cu:",
    "large_shared": "more shared memory than the 48 KB",
    "waits_for_ever": "a deadlock: threads wait for ever",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a function that runs a kernel of faulty.cu and returns its error."""
    if emulated.compiler() is None:
        pytest.skip("no g++, which the emulation of CUDA needs")
    folder = tmp_path_factory.mktemp("faulty")
    source = folder / "faulty.cu"
    source.write_text(emulated.rewritten((emulated.HERE / "faulty.cu").read_text()))
    emulator = [str(emulated.EMULATOR / f"{name}.cpp") for name in ("emulator", "memory")]
    objects = [f"{folder}/{name}.o" for name in ("emulator", "memory", "faulty")]
    for path, flags, out in zip((*emulator, source), ([], [], emulated.CHECKED), objects, strict=True):
        emulated.compile_source(path, flags, out)
    emulated.link(objects, folder / "faulty.so")
    library = ctypes.CDLL(str(folder / "faulty.so"))
    library.run_faulty.restype = ctypes.c_char_p

    def call(name, blocks=1, threads=64, order=0, other_stream=False):
        library.emulator_set_order(order)
        return library.run_faulty(name.encode(), blocks, threads, other_stream).decode()

    return call


@pytest.mark.parametrize("order", [0, 1, 5])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen(run, name, order):
    message = run(name, order=order)
    assert message.startswith("emulated CUDA: ")
    assert any(part in message for part in FAULTS[name].split("|")), message


@pytest.mark.parametrize("order", [0, 1, 5])
@pytest.mark.parametrize("name", ["right", "atomic_sum"])
def test_what_is_right_runs(run, name, order):
    assert run(name, order=order) == ""


def test_blocks_are_never_ordered(run):
    assert run("blocks_share_a_word") == ""
    assert "a race in global memory with a write of thread" in run("blocks_share_a_word", blocks=2)


@pytest.mark.parametrize(("blocks", "threads"), [(0, 64), (2 ** 31, 64), (1, 0), (1, 1025)])
def test_grids_beyond_the_limits_of_cuda(run, blocks, threads):
    assert f"a grid of {blocks} x 1 x 1 blocks of {threads} threads" in run("right", blocks, threads)


def test_another_stream(run):
    assert "not on torch's current stream" in run("right", other_stream=True)
