// What the CUDA kernels share.
#pragma once
#include <cuda_runtime.h>

#include <cassert>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "../kernels.h"

namespace act {

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;

inline cudaStream_t stream_of(const Executor& run) { return static_cast<cudaStream_t>(run.stream); }

inline void check(cudaError_t error, const char* operation) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string(operation) + ": " + cudaGetErrorString(error));
}

// Return how many blocks of `threads` cover `count` items.
inline unsigned blocks_for(int64_t count, int threads) {
  const int64_t blocks = (count + threads - 1) / threads;
  if (blocks > 0x7fffffff) throw std::runtime_error("the input is too large for one CUDA launch");
  return static_cast<unsigned>(blocks);
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
