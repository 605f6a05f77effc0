// Nearest neighbours: a warp a query, its k nearest so far sorted across the lanes; what may be nearer waits in shared
// memory until there are as many as lanes, is sorted and merged with them (as in Johnson et al. 2017). No distance matrix.
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

// Keep the nearer of a lane's own pair and that of another lane, or the further.
template <class T>
__device__ Pair<T> exchange(const Pair<T>& own, int stride, bool keep_nearer) {
  const Pair<T> other{__shfl_xor_sync(ALL, own.value, stride), __shfl_xor_sync(ALL, own.index, stride)};
  return before(other, own) == keep_nearer ? other : own;
}

// Sort across the lanes pairs that are bitonic: up to one lane they come nearer or go further, from there the contrary.
template <class T>
__device__ Pair<T> sort_bitonic(Pair<T> own, int lane) {
  for (int stride = WARP / 2; stride; stride /= 2) own = exchange(own, stride, !(lane & stride));
  return own;
}

template <class T>
__device__ Pair<T> sort(Pair<T> own, int lane) {
  for (int size = 2; size <= WARP; size *= 2)
    for (int stride = size / 2; stride; stride /= 2) own = exchange(own, stride, !(lane & stride) == !(lane & size));
  return own;
}

// Merge 32 pairs, a lane each, into the sorted list: place p is register p / 32 of lane p % 32. The furthest fall out.
template <class T, int LISTS>
__device__ void merge(Pair<T> (&list)[LISTS], Pair<T> added, int lane) {
  added = sort(added, lane);
#pragma unroll
  for (int r = 0; r < LISTS; ++r) {
    // the nearer of both, one of them backwards, are the 32 nearest, and bitonic; so are the further
    const Pair<T> other = shuffle(added, WARP - 1 - lane);
    const bool take = before(other, list[r]);
    added = sort_bitonic(take ? list[r] : other, lane);
    list[r] = sort_bitonic(take ? other : list[r], lane);
  }
}

// `LISTS` is the least number of registers whose 32 lanes each hold k places.
template <class T, int LISTS>
__global__ void search(const T* refs, const T* queries, T* distance, int64_t* index, int64_t rows, int64_t per_cloud,
                       int points, int64_t dimensions, int k) {
  __shared__ Pair<T> all_waiting[WARPS][2 * WARP];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / WARP;
  const int lane = threadIdx.x % WARP;
  if (row >= rows) return;  // the whole warp
  const T* ref = refs + row / per_cloud * points * dimensions;
  const T* query = queries + row * dimensions;
  Pair<T>* waiting = all_waiting[threadIdx.x / WARP];
  int count = 0;  // of those that wait
  const Pair<T> nothing{infinite<T>(), 0x7fffffff};
  Pair<T> list[LISTS];
#pragma unroll
  for (int r = 0; r < LISTS; ++r) list[r] = nothing;
  Pair<T> limit = nothing;  // the k-th so far
  for (int start = 0; start < points; start += WARP) {
    const Pair<T> own = start + lane < points ? candidate(ref, query, dimensions, start + lane) : nothing;
    const bool near = before(own, limit);
    const unsigned found = __ballot_sync(ALL, near);
    if (near) waiting[count + __popc(found & ((1u << lane) - 1))] = own;
    count += __popc(found);
    if (count < WARP) continue;  // alike in all lanes
    __syncwarp();
    merge(list, waiting[lane], lane);
    limit = shuffle(list[LISTS - 1], (k - 1) % WARP);
    count -= WARP;
    if (lane < count) waiting[lane] = waiting[WARP + lane];
    __syncwarp();
  }
  __syncwarp();
  if (count) merge(list, lane < count ? waiting[lane] : nothing, lane);
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
  const int64_t rows = batch * queries;
  const auto kernel = k <= WARP       ? search<T, 1>
                      : k <= 2 * WARP ? search<T, 2>
                      : k <= 3 * WARP ? search<T, 3>
                      : k <= 4 * WARP ? search<T, 4>
                                      : search_any<T>;
  launch(run, "knn", kernel, blocks_for(rows, WARPS), WARPS * WARP, ref, query, distance, index, rows, queries,
         as_int(points, "knn"), dimensions, k);
}

template void knn(const Executor&, const float*, const float*, float*, int64_t*, int64_t, int64_t, int64_t, int64_t,
                  int64_t);
template void knn(const Executor&, const double*, const double*, double*, int64_t*, int64_t, int64_t, int64_t, int64_t,
                  int64_t);

}  // namespace act
