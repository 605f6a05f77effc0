// Nearest neighbours: a warp a query, its k nearest so far sorted across the lanes; no distance matrix.
#include "common.cuh"

namespace act {
namespace {

constexpr int WARPS = 4;  // queries a block

template <class T>
__device__ T squared_distance(const T* a, const T* b, int64_t dimensions) {
  if (dimensions == 3) return squared(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
  T sum = (a[0] - b[0]) * (a[0] - b[0]);
  for (int64_t d = 1; d < dimensions; ++d) sum += (a[d] - b[d]) * (a[d] - b[d]);
  return sum;
}

// What is not a number counts as infinitely far, so that every index stays within the cloud.
template <class T>
__device__ Pair<T> candidate(const T* ref, const T* query, int64_t dimensions, int index) {
  const T distance = squared_distance(ref + index * dimensions, query, dimensions);
  return {distance == distance ? distance : infinite<T>(), index};
}

template <class T>
__device__ Pair<T> shuffle(const Pair<T>& pair, int lane) {
  return {__shfl_sync(ALL, pair.value, lane), __shfl_sync(ALL, pair.index, lane)};
}

// Place p of the sorted list is register p / 32 of lane p % 32. `LISTS` × 32 is at least k.
template <class T, int LISTS>
__global__ void search(const T* refs, const T* queries, T* distance, int64_t* index, int64_t rows, int64_t per_cloud,
                       int points, int64_t dimensions, int k) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / WARP;
  const int lane = threadIdx.x % WARP;
  if (row >= rows) return;  // the whole warp
  const T* ref = refs + row / per_cloud * points * dimensions;
  const T* query = queries + row * dimensions;
  Pair<T> list[LISTS];
#pragma unroll
  for (int r = 0; r < LISTS; ++r) list[r] = {infinite<T>(), 0x7fffffff};
  Pair<T> limit = list[0];  // the k-th so far
  for (int start = 0; start < points; start += WARP) {
    Pair<T> own{infinite<T>(), 0x7fffffff};
    if (start + lane < points) own = candidate(ref, query, dimensions, start + lane);
    unsigned waiting = __ballot_sync(ALL, before(own, limit));
    while (waiting) {
      const Pair<T> added = shuffle(own, __ffs(waiting) - 1);
      waiting &= waiting - 1;
      if (!before(added, limit)) continue;  // alike in all lanes
      int place = 0;
#pragma unroll
      for (int r = 0; r < LISTS; ++r) place += __popc(__ballot_sync(ALL, before(list[r], added)));
#pragma unroll
      for (int r = LISTS - 1; r >= 0; --r) {
        Pair<T> left{__shfl_up_sync(ALL, list[r].value, 1), __shfl_up_sync(ALL, list[r].index, 1)};
        const Pair<T> carry = shuffle(list[r ? r - 1 : 0], WARP - 1);
        if (lane == 0) left = carry;
        const int p = r * WARP + lane;
        if (p > place)
          list[r] = left;
        else if (p == place)
          list[r] = added;
      }
#pragma unroll
      for (int r = 0; r < LISTS; ++r)
        if (r == (k - 1) / WARP) limit = shuffle(list[r], (k - 1) % WARP);
    }
  }
#pragma unroll
  for (int r = 0; r < LISTS; ++r) {
    const int p = r * WARP + lane;
    if (p < k) {
      distance[row * k + p] = sqrt(list[r].value);
      index[row * k + p] = list[r].index;
    }
  }
}

// For any k: the next nearest, one after the other.
template <class T>
__global__ void search_any(const T* refs, const T* queries, T* distance, int64_t* index, int64_t rows,
                           int64_t per_cloud, int points, int64_t dimensions, int k) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / WARP;
  const int lane = threadIdx.x % WARP;
  if (row >= rows) return;
  const T* ref = refs + row / per_cloud * points * dimensions;
  const T* query = queries + row * dimensions;
  Pair<T> last{T(-1), -1};
  for (int found = 0; found < k; ++found) {
    Pair<T> best{infinite<T>(), 0x7fffffff};
    for (int i = lane; i < points; i += WARP) {
      const Pair<T> other = candidate(ref, query, dimensions, i);
      if (before(last, other) && before(other, best)) best = other;
    }
    for (int offset = WARP / 2; offset; offset /= 2) {
      const Pair<T> other{__shfl_xor_sync(ALL, best.value, offset), __shfl_xor_sync(ALL, best.index, offset)};
      if (before(other, best)) best = other;
    }
    last = best;
    if (lane == 0) {
      distance[row * k + found] = sqrt(best.value);
      index[row * k + found] = best.index;
    }
  }
}

}  // namespace

template <class T>
void knn(const Executor& run, const T* ref, const T* query, T* distance, int64_t* index, int64_t batch, int64_t points,
         int64_t queries, int64_t dimensions, int64_t k) {
  if (points >= 0x7fffffff) throw std::runtime_error("knn: a cloud is too large");
  const int64_t rows = batch * queries;
  const auto launch = [&](auto kernel) {
    kernel<<<blocks_for(rows, WARPS), WARPS * WARP, 0, stream_of(run)>>>(
        ref, query, distance, index, rows, queries, static_cast<int>(points), dimensions, static_cast<int>(k));
  };
  if (k <= WARP)
    launch(search<T, 1>);
  else if (k <= 2 * WARP)
    launch(search<T, 2>);
  else if (k <= 4 * WARP)
    launch(search<T, 4>);
  else
    launch(search_any<T>);
  check(cudaGetLastError(), "knn");
}

template void knn(const Executor&, const float*, const float*, float*, int64_t*, int64_t, int64_t, int64_t, int64_t,
                  int64_t);
template void knn(const Executor&, const double*, const double*, double*, int64_t*, int64_t, int64_t, int64_t, int64_t,
                  int64_t);

}  // namespace act
