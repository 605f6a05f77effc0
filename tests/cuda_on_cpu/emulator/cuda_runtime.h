// CUDA's execution model on the CPU, in place of NVIDIA's header: what the kernels of extensions/csrc/cuda use of it.
//
// The threads of a block are fibers on one thread of the system. Each runs until it has to wait for others: at a barrier
// or at an operation of its warp. What CUDA leaves undefined ends the launch with an error; see emulator.cpp and memory.cpp.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <tuple>
#include <type_traits>

#define __global__
// inlined, so that a struct that is passed by value is seen to be read
#define __device__ __attribute__((always_inline)) inline
#define __launch_bounds__(...)
#define __CUDA_ARCH__ 800

using std::fmin;
using std::max;
using std::min;

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

enum cudaError_t { cudaSuccess, cudaErrorMemoryAllocation = 2, cudaErrorInvalidConfiguration = 9, cudaErrorLaunchFailure = 719 };
using cudaStream_t = struct CUstream_st*;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t);

namespace emulator {

using Site = std::source_location;

struct Place {  // the running thread's
  uint3 thread, block;
  dim3 block_size, grid_size;
};
extern Place place;

struct Kernel {
  const void* function;
  void (*run)(void* call);
  void* call;
};
cudaError_t launch(const cudaLaunchConfig_t&, const Kernel&);

void barrier(Site);

enum class Operation { SHUFFLE, BALLOT, MAXIMUM, MINIMUM, SYNC };
// Wait for the lanes of `mask`, give them `value`, and return what the operation makes of all: of a shuffle the value of
// lane `from`, of a ballot the lanes whose value is not 0.
uint64_t meet(Operation, unsigned mask, uint64_t value, int from, Site);

// The array that is number `key` of the block's shared memory, not initialised.
void* shared_memory(int key, size_t bytes);
template <class Array>
Array& shared(int key) {
  return *static_cast<Array*>(shared_memory(key, sizeof(Array)));
}

// An atomic access has been made.
void atomic(void*, size_t bytes, void* caller);

inline int thread_number() {
  return static_cast<int>(place.thread.x + place.block_size.x * (place.thread.y + place.block_size.y * place.thread.z));
}
inline int lane() { return thread_number() % 32; }

template <class T>
T shuffle(unsigned mask, T value, int from, Site site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = meet(Operation::SHUFFLE, mask, bits, from, site);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace emulator

inline constexpr uint3 &threadIdx = emulator::place.thread, &blockIdx = emulator::place.block;
inline constexpr dim3 &blockDim = emulator::place.block_size, &gridDim = emulator::place.grid_size;

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  } call{kernel, {static_cast<Parameters>(arguments)...}};
  const auto run = [](void* p) { std::apply(static_cast<Call*>(p)->kernel, static_cast<Call*>(p)->arguments); };
  return emulator::launch(*config, {reinterpret_cast<const void*>(kernel), run, &call});
}

inline void __syncthreads(emulator::Site site = emulator::Site::current()) { emulator::barrier(site); }
inline void __syncwarp(unsigned mask = ~0u, emulator::Site site = emulator::Site::current()) {
  emulator::meet(emulator::Operation::SYNC, mask, 0, 0, site);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, emulator::Site site = emulator::Site::current()) {
  return static_cast<unsigned>(emulator::meet(emulator::Operation::BALLOT, mask, predicate != 0, 0, site));
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, emulator::Site site = emulator::Site::current()) {
  return static_cast<unsigned>(emulator::meet(emulator::Operation::MAXIMUM, mask, value, 0, site));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, emulator::Site site = emulator::Site::current()) {
  return static_cast<unsigned>(emulator::meet(emulator::Operation::MINIMUM, mask, value, 0, site));
}
template <class T>
T __shfl_sync(unsigned mask, T value, int from, emulator::Site site = emulator::Site::current()) {
  return emulator::shuffle(mask, value, from & 31, site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int by, emulator::Site site = emulator::Site::current()) {
  return emulator::shuffle(mask, value, emulator::lane() < by ? emulator::lane() : emulator::lane() - by, site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with, emulator::Site site = emulator::Site::current()) {
  return emulator::shuffle(mask, value, emulator::lane() ^ with, site);
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

template <class T>
__attribute__((noinline, no_sanitize("thread"))) T atomicAdd(T* p, T value) {
  emulator::atomic(p, sizeof(T), __builtin_return_address(0));
  const T old = *p;
  *p = old + value;
  return old;
}
