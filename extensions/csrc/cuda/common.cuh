// What the CUDA kernels share.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "../kernels.h"

namespace act {

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;

// Launch `kernel` on the caller's stream; raise if that fails.
template <class... Parameters, class... Arguments>
void launch(const Executor& run, const char* operation, void (*kernel)(Parameters...), dim3 blocks, int threads,
            Arguments... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = blocks, config.blockDim = threads, config.stream = static_cast<cudaStream_t>(run.stream);
  // the error of this launch alone, not of whoever called CUDA before
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
  if (error == cudaSuccess) return;
  const std::string message = std::string(operation) + ": " + cudaGetErrorString(error);
  cudaGetLastError();  // what stays would fail the next call, torch's perhaps
  throw std::runtime_error(message);
}

// Return how many blocks of `threads` cover `count` items.
inline unsigned blocks_for(int64_t count, int threads) {
  const int64_t blocks = (count + threads - 1) / threads;
  if (blocks > 0x7fffffff) throw std::runtime_error("the input is too large for one CUDA launch");
  return static_cast<unsigned>(blocks);
}

// Return `count` as an int, which kernels count the points of a cloud by.
inline int as_int(int64_t count, const char* operation) {
  if (count > 0x7fffffff / 4) throw std::runtime_error(std::string(operation) + ": a cloud is too large");
  return static_cast<int>(count);
}

template <class T>
__device__ constexpr T infinite() {
  return static_cast<T>(INFINITY);
}

template <class T>
__device__ T squared(T x, T y, T z) {
  return (x * x + y * y) + z * z;
}

// A distance and whose it is.
template <class T>
struct Pair {
  T value;
  int index;
};

template <class T>
__device__ bool before(const Pair<T>& a, const Pair<T>& b) {
  return a.value < b.value || (a.value == b.value && a.index < b.index);
}

}  // namespace act
