// Which queries name a point. A gradient is then collected by the point that receives it: without atomics on floats, so
// that it is the same every time, and in time linear in queries and points.
#pragma once
#include <cassert>

#include "common.cuh"

namespace act {
namespace {

constexpr int MOST_INVERTING = 1024;  // threads

__device__ int64_t own_item() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

__device__ int64_t valid(int64_t index, int64_t points) {
  assert(index >= 0 && index < points);
  return index;
}

// The queries of cloud b that name point n are order[b Q + s] for s from starts[b (N + 1) + n] to below the next start,
// ascending.
struct Inverse {
  const int *starts, *order;

  __device__ void of_cloud(int64_t b, int64_t points, int64_t queries) {
    starts += b * (points + 1), order += b * queries;
  }
};

// Return the sum of `value` over the threads before this one; `total` is that of all. `sums` has room for every warp.
__device__ int sum_before(int value, int* sums, int& total) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  int sum = value;
  for (int by = 1; by < WARP; by *= 2) {
    const int other = __shfl_up_sync(ALL, sum, by);
    if (lane >= by) sum += other;
  }
  __syncthreads();  // the last call's sums have been read
  if (lane == WARP - 1) sums[warp] = sum;
  __syncthreads();
  int before = 0;
  total = 0;
  for (int w = 0; w < warps; ++w) {
    if (w < warp) before += sums[w];
    total += sums[w];
  }
  return before + sum - value;
}

// A block a cloud. `all_next` holds first how many queries name each point, then the place of its next one.
__global__ void __launch_bounds__(MOST_INVERTING)
    invert(const int64_t* all_idx, int* all_starts, int* all_order, int* all_next, int points, int queries) {
  __shared__ int sums[WARP];
  const int64_t b = blockIdx.x;
  const int64_t* idx = all_idx + b * queries;
  int *starts = all_starts + b * (points + 1ll), *order = all_order + b * queries, *next = all_next + b * points;
  for (int n = threadIdx.x; n < points; n += blockDim.x) next[n] = 0;
  __syncthreads();
  for (int q = threadIdx.x; q < queries; q += blockDim.x) atomicAdd(next + valid(idx[q], points), 1);
  __syncthreads();
  int before = 0;
  for (int start = 0; start < points; start += blockDim.x) {
    const int n = start + threadIdx.x;
    int total;
    const int place = before + sum_before(n < points ? next[n] : 0, sums, total);
    if (n < points) starts[n] = next[n] = place;
    before += total;
  }
  if (threadIdx.x == 0) starts[points] = queries;
  __syncthreads();
  // a warp places the queries of its own points, in their order
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  for (int start = 0; start < queries; start += WARP) {
    const int q = start + lane;
    const int named = q < queries ? static_cast<int>(idx[q]) : -1;
    unsigned left = __ballot_sync(ALL, named >= 0 && (named & (warps - 1)) == warp);
    while (left) {
      const int point = __shfl_sync(ALL, named, __ffs(left) - 1);
      const unsigned same = __ballot_sync(ALL, named == point);
      const int place = next[point];
      if (named == point) order[place + __popc(same & ((1u << lane) - 1))] = q;
      __syncwarp();
      if (lane == 0) next[point] = place + __popc(same);
      __syncwarp();
      left &= ~same;
    }
  }
}

// Return the inverse of idx (B, Q), whose values are from 0 to N - 1.
inline Inverse invert_index(const Executor& run, const char* operation, const int64_t* idx, int64_t batch,
                            int64_t points, int64_t queries) {
  const int n = as_int(points, operation), q = as_int(queries, operation);
  int* starts = run.scratch<int>(batch * (points + 1));
  int* order = run.scratch<int>(batch * queries);
  int* next = run.scratch<int>(batch * points);
  int threads = WARP;
  while (threads < MOST_INVERTING && 8 * threads < max(n, q)) threads *= 2;
  launch(run, operation, invert, blocks_for(batch, 1), threads, idx, starts, order, next, n, q);
  return {starts, order};
}

}  // namespace
}  // namespace act
