// Kernels with one fault each, which the emulator must see, and some that look like it and are right.
#include <cassert>
#include <cstdint>
#include <map>
#include <string>

#include "emulator.h"

namespace {

constexpr unsigned ALL = 0xffffffffu;
constexpr int COUNT = 64;  // numbers in `data`, threads of a block

__global__ void divergent_barrier(float* data) {
  if (threadIdx.x < 40) __syncthreads();
  data[threadIdx.x] = 0;
}

__global__ void different_barriers(float* data) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  data[threadIdx.x] = 0;
}

__global__ void lane_that_left(float* data) {
  if (threadIdx.x % 32 == 5) return;
  data[threadIdx.x] = __shfl_xor_sync(ALL, 1.0f, 1);
}

__global__ void lane_outside_the_mask(float* data) {
  if (threadIdx.x % 32 < 16) data[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 20);
}

__global__ void different_operations(float* data) {
  if (threadIdx.x % 2)
    data[threadIdx.x] = __shfl_xor_sync(ALL, 1.0f, 2);
  else
    data[threadIdx.x] = __ballot_sync(ALL, 1);
}

__global__ void uninitialised_shared(float* data) {
  __shared__ float shared[COUNT];
  if (threadIdx.x) shared[threadIdx.x] = 1;
  __syncthreads();
  data[threadIdx.x] = shared[threadIdx.x];
}

__global__ void shared_without_barrier(float* data) {
  __shared__ float shared[COUNT];
  shared[threadIdx.x] = 1;
  data[threadIdx.x] = shared[COUNT - 1 - threadIdx.x];
}

__global__ void shuffle_is_no_barrier(float* data) {
  __shared__ float shared[COUNT];
  shared[threadIdx.x] = 1;
  __shfl_xor_sync(ALL, 1, 1);
  data[threadIdx.x] = shared[threadIdx.x ^ 1];
}

__global__ void struct_by_value(float* data) {
  struct Two {
    float a, b;
  };
  __shared__ Two shared[COUNT];
  shared[threadIdx.x] = {1, 2};
  const Two other = shared[threadIdx.x ^ 1];
  data[threadIdx.x] = other.a;
}

__global__ void sum_without_atomic(float* data) {
  if (threadIdx.x == 0) data[0] = 0;
  __syncthreads();
  data[0] += 1;
}
__global__ void blocks_share_a_word(float* data) { data[threadIdx.x] = blockIdx.x; }
__global__ void behind_the_end(float* data) { data[threadIdx.x + 1] = 0; }
__global__ void before_the_beginning(float* data) { data[static_cast<int>(threadIdx.x) - 1] = 0; }
__global__ void index_outside(float* data) {
  float registers[4] = {};
  for (int i = 0; i <= static_cast<int>(threadIdx.x) / 16; ++i) registers[i + 1] = i;
  data[threadIdx.x] = registers[0];
}
__global__ void int_overflow(float* data) { data[threadIdx.x] = 0x7fffffff + static_cast<int>(threadIdx.x); }
__global__ void writes_an_input(float* data) { const_cast<float*>(data + COUNT)[threadIdx.x] = 0; }
__global__ void reads_an_output(float* data) { data[threadIdx.x] += 1; }
__global__ void fails_an_assertion(float*) { assert(threadIdx.x < 50); }
__global__ void large_shared(float* data) {
  __shared__ float shared[13 << 10];
  shared[threadIdx.x] = data[COUNT + threadIdx.x];
}
__global__ void waits_for_ever(float* data) {
  if (threadIdx.x < 32 || threadIdx.x == 63)
    __syncthreads();
  else
    __syncwarp();
  data[threadIdx.x] = 0;
}

__global__ void right(float* data) {
  __shared__ float shared[COUNT];
  shared[threadIdx.x] = data[COUNT + threadIdx.x];
  __syncwarp();
  const float neighbour = shared[threadIdx.x ^ 1];
  __syncthreads();
  shared[COUNT - 1 - threadIdx.x] = neighbour;
  __syncthreads();
  const unsigned odd = __ballot_sync(ALL, threadIdx.x % 2);
  data[threadIdx.x] = shared[threadIdx.x] + __popc(odd) + __shfl_up_sync(ALL, 1.0f, 1);
}
__global__ void atomic_sum(float* data) {
  if (threadIdx.x == 0) data[0] = 0;
  __syncthreads();
  atomicAdd(data, 1.0f);
}

const std::map<std::string, void (*)(float*)> KERNELS = {
#define K(name) {#name, name}
    K(divergent_barrier), K(different_barriers), K(lane_that_left), K(lane_outside_the_mask), K(different_operations),
    K(uninitialised_shared), K(shared_without_barrier), K(shuffle_is_no_barrier), K(struct_by_value),
    K(sum_without_atomic), K(blocks_share_a_word), K(behind_the_end), K(before_the_beginning), K(index_outside),
    K(int_overflow), K(writes_an_input), K(reads_an_output), K(fails_an_assertion), K(large_shared), K(waits_for_ever),
    K(right), K(atomic_sum)};

std::string message;
float data[2 * COUNT];

}  // namespace

// Run a kernel by name on blocks of 64 threads; return the error, nothing where there is none. `data` is 64 numbers to be
// written and 64 to be read.
extern "C" const char* run_faulty(const char* name, unsigned blocks, unsigned threads, int other_stream) {
  emulator::begin_operator();
  emulator::allow(data, COUNT * sizeof(float), true);
  emulator::allow(data + COUNT, COUNT * sizeof(float), false);
  cudaLaunchConfig_t config{blocks, threads, 0, other_stream ? nullptr : emulator::STREAM};
  const cudaError_t error = cudaLaunchKernelEx(&config, KERNELS.at(name), data);
  message = error == cudaSuccess ? "" : cudaGetErrorString(error);
  cudaGetLastError();
  return message.c_str();
}
