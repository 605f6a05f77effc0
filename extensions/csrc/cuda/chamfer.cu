// Chamfer distance: a warp a pair of patches, tiles for whole clouds, both directions in one launch; the gradient is
// collected by each point from those that name it.
#include "common.cuh"
#include "inverse.cuh"

namespace act {
namespace {

constexpr int PATCH = 64;   // points up to which a warp takes a pair
constexpr int PAIRS = 4;    // pairs a block
constexpr int SLICES = 8;   // threads that share a query of a whole cloud, one in each warp
constexpr int TILE = 256;   // points of the other cloud in shared memory

// Take the distance to point `index` into account; the first that is not a number stays.
template <class T>
__device__ void take(Pair<T>& best, T distance, int index) {
  if (best.value == best.value && !(distance >= best.value)) best = {distance, index};
}

// Whether `a` goes before `b`, what is not a number before all others.
template <class T>
__device__ bool nearer(const Pair<T>& a, const Pair<T>& b) {
  const bool a_is_nan = a.value != a.value, b_is_nan = b.value != b.value;
  if (a_is_nan || b_is_nan) return a_is_nan && (!b_is_nan || a.index < b.index);
  return before(a, b);
}

template <class T>
__device__ void patch_one_way(const T* from, int count, const T* to, int points, T* dist, int64_t* idx, int lane) {
  for (int i = lane; i < count; i += WARP) {
    Pair<T> best{infinite<T>(), 0};
    for (int j = 0; j < points; ++j)
      take(best, squared(from[3 * i] - to[3 * j], from[3 * i + 1] - to[3 * j + 1], from[3 * i + 2] - to[3 * j + 2]), j);
    dist[i] = best.value;
    idx[i] = best.index;
  }
}

template <class T>
__global__ void patches(const T* xyz1, const T* xyz2, T* dist1, T* dist2, int64_t* idx1, int64_t* idx2, int64_t batch,
                        int points1, int points2) {
  __shared__ T shared[PAIRS][2 * 3 * PATCH];
  const int64_t b = static_cast<int64_t>(blockIdx.x) * PAIRS + threadIdx.x / WARP;
  const int lane = threadIdx.x % WARP;
  if (b >= batch) return;  // the whole warp
  T* one = shared[threadIdx.x / WARP];
  T* two = one + 3 * PATCH;
  for (int i = lane; i < 3 * points1; i += WARP) one[i] = xyz1[b * points1 * 3 + i];
  for (int i = lane; i < 3 * points2; i += WARP) two[i] = xyz2[b * points2 * 3 + i];
  __syncwarp();
  patch_one_way(one, points1, two, points2, dist1 + b * points1, idx1 + b * points1, lane);
  patch_one_way(two, points2, one, points1, dist2 + b * points2, idx2 + b * points2, lane);
}

// blockIdx.y is the direction; a block has WARP queries, thread (slice, lane) sees every SLICES-th point for query lane.
template <class T>
__global__ void clouds(const T* xyz1, const T* xyz2, T* dist1, T* dist2, int64_t* idx1, int64_t* idx2, int64_t batch,
                       int points1, int points2) {
  __shared__ T tile[3 * TILE];
  __shared__ Pair<T> parts[SLICES][WARP];
  const bool back = blockIdx.y;
  const T *from = back ? xyz2 : xyz1, *to = back ? xyz1 : xyz2;
  const int count = back ? points2 : points1, points = back ? points1 : points2;
  const int64_t per_cloud = (count + WARP - 1) / WARP;
  const int64_t b = blockIdx.x / per_cloud;
  if (b >= batch) return;  // the whole block: the grid is that of the larger cloud
  const int lane = threadIdx.x % WARP, slice = threadIdx.x / WARP;
  const int query = static_cast<int>(blockIdx.x % per_cloud) * WARP + lane;
  const T* p = from + (b * count + min(query, count - 1)) * 3;
  const T x = p[0], y = p[1], z = p[2];
  to += b * points * 3;
  Pair<T> best{infinite<T>(), 0};
  for (int start = 0; start < points; start += TILE) {
    const int size = min(TILE, points - start);
    __syncthreads();
    for (int i = threadIdx.x; i < 3 * size; i += blockDim.x) tile[i] = to[3ll * start + i];
    __syncthreads();
    for (int j = slice; j < size; j += SLICES)
      take(best, squared(x - tile[3 * j], y - tile[3 * j + 1], z - tile[3 * j + 2]), start + j);
  }
  parts[slice][lane] = best;
  __syncthreads();
  if (slice == 0 && query < count) {
    for (int s = 1; s < SLICES; ++s) {
      const Pair<T> other = parts[s][lane];
      if (nearer(other, best)) best = other;
    }
    (back ? dist2 : dist1)[b * count + query] = best.value;
    (back ? idx2 : idx1)[b * count + query] = best.index;
  }
}

// A thread a point of either cloud: its own term, then those of the points whose nearest it is. `inverse1` tells which
// points of xyz2 name one of xyz1, `inverse2` the contrary; without them, for patches, it asks all.
template <class T>
__global__ void pull(const T* grad1, const T* grad2, const T* xyz1, const T* xyz2, const int64_t* idx1,
                     const int64_t* idx2, Inverse inverse1, Inverse inverse2, T* out1, T* out2, int64_t batch,
                     int points1, int points2) {
  const int64_t item = own_item();
  if (item >= batch * (points1 + points2)) return;
  const bool back = item >= batch * points1;
  const int64_t row = back ? item - batch * points1 : item;
  const int count = back ? points2 : points1, points = back ? points1 : points2;
  const int64_t b = row / count, first = b * points;  // of the other cloud's points
  const int own_index = static_cast<int>(row % count);
  const T *own = (back ? xyz2 : xyz1) + 3 * row, *others = (back ? xyz1 : xyz2) + 3 * first;
  const T own_weight = 2 * (back ? grad2 : grad1)[row];
  const T* weights = (back ? grad1 : grad2) + first;
  const int64_t* named = (back ? idx1 : idx2) + first;
  const int64_t nearest = valid((back ? idx2 : idx1)[row], points);
  T sum[3];
  for (int axis = 0; axis < 3; ++axis) sum[axis] = (own[axis] - others[3 * nearest + axis]) * own_weight;
  const auto subtract = [&](int64_t j) {
    for (int axis = 0; axis < 3; ++axis) sum[axis] -= (others[3 * j + axis] - own[axis]) * (2 * weights[j]);
  };
  Inverse named_by = back ? inverse2 : inverse1;
  if (named_by.starts) {
    named_by.of_cloud(b, count, points);
    for (int s = named_by.starts[own_index]; s < named_by.starts[own_index + 1]; ++s) subtract(named_by.order[s]);
  } else {
    for (int j = 0; j < points; ++j)
      if (named[j] == own_index) subtract(j);
  }
  for (int axis = 0; axis < 3; ++axis) (back ? out2 : out1)[3 * row + axis] = sum[axis];
}

}  // namespace

template <class T>
void chamfer(const Executor& run, const T* xyz1, const T* xyz2, T* dist1, T* dist2, int64_t* idx1, int64_t* idx2,
             int64_t batch, int64_t points1, int64_t points2) {
  const int64_t larger = max(points1, points2);
  const int n = as_int(points1, "chamfer"), m = as_int(points2, "chamfer");
  if (larger <= PATCH) {
    launch(run, "chamfer", patches<T>, blocks_for(batch, PAIRS), PAIRS * WARP, xyz1, xyz2, dist1, dist2, idx1, idx2,
           batch, n, m);
  } else {
    const dim3 grid(blocks_for(batch * ((larger + WARP - 1) / WARP), 1), 2);
    launch(run, "chamfer", clouds<T>, grid, SLICES * WARP, xyz1, xyz2, dist1, dist2, idx1, idx2, batch, n, m);
  }
}

template <class T>
void chamfer_backward(const Executor& run, const T* grad1, const T* grad2, const T* xyz1, const T* xyz2,
                      const int64_t* idx1, const int64_t* idx2, T* out1, T* out2, int64_t batch, int64_t points1,
                      int64_t points2) {
  const char* operation = "chamfer_backward";
  Inverse inverse1{}, inverse2{};
  if (max(points1, points2) > PATCH) {
    inverse1 = invert_index(run, operation, idx2, batch, points1, points2);
    inverse2 = invert_index(run, operation, idx1, batch, points2, points1);
  }
  const int threads = 256;
  launch(run, operation, pull<T>, blocks_for(batch * (points1 + points2), threads), threads, grad1, grad2, xyz1, xyz2,
         idx1, idx2, inverse1, inverse2, out1, out2, batch, as_int(points1, operation), as_int(points2, operation));
}

#define ACT_INSTANTIATE(T)                                                                                           \
  template void chamfer(const Executor&, const T*, const T*, T*, T*, int64_t*, int64_t*, int64_t, int64_t, int64_t); \
  template void chamfer_backward(const Executor&, const T*, const T*, const T*, const T*, const int64_t*,            \
                                 const int64_t*, T*, T*, int64_t, int64_t, int64_t);
ACT_INSTANTIATE(float)
ACT_INSTANTIATE(double)

}  // namespace act
