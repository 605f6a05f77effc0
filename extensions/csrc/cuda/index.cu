// Operators that follow indices: gathering, balls, interpolation. A thread an element, a warp a ball.
#include "common.cuh"
#include "inverse.cuh"

namespace act {
namespace {

constexpr int THREADS = 256;
constexpr int BALLS = 4;  // a block

template <class T>
__global__ void gather(const T* features, const int64_t* idx, T* out, int64_t total, int64_t channels, int64_t points,
                       int64_t queries) {
  const int64_t item = own_item();
  if (item >= total) return;
  const int64_t row = item / queries;  // b C + c
  out[item] = features[row * points + valid(idx[row / channels * queries + item % queries], points)];
}

// A point sums what the queries that name it got, in their order. WEIGHTED: each query names three points (M, 3), each
// with a weight.
template <class T, bool WEIGHTED>
__global__ void collect(const T* grad, const T* weight, Inverse named_by, T* out, int64_t total, int64_t channels,
                        int64_t points, int64_t queries) {
  const int64_t item = own_item();
  if (item >= total) return;
  const int64_t row = item / points, n = item % points, b = row / channels;
  const int names = WEIGHTED ? 3 : 1;  // of a query
  named_by.of_cloud(b, points, names * queries);
  T sum = 0;
  for (int s = named_by.starts[n]; s < named_by.starts[n + 1]; ++s) {
    const int at = named_by.order[s];
    const T part = grad[row * queries + at / names];
    sum += WEIGHTED ? part * weight[b * queries * 3 + at] : part;
  }
  out[item] = sum;
}

// The points are seen in the order of their index, 32 at once.
template <class T>
__global__ void ball(const T* xyz, const T* centres, int64_t* index, int64_t rows, int64_t per_cloud, int points,
                     T limit, int64_t nsample) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * BALLS + threadIdx.x / WARP;
  const int lane = threadIdx.x % WARP;
  if (row >= rows) return;
  const T *cloud = xyz + row / per_cloud * points * 3, *centre = centres + row * 3;
  const T x = centre[0], y = centre[1], z = centre[2];
  int64_t count = 0, first = 0;
  for (int start = 0; start < points && count < nsample; start += WARP) {
    const int at = start + lane;
    const T* p = cloud + 3ll * min(at, points - 1);
    const bool inside = at < points && squared(x - p[0], y - p[1], z - p[2]) < limit;
    const unsigned found = __ballot_sync(ALL, inside);
    const int64_t place = count + __popc(found & ((1u << lane) - 1));
    if (inside && place < nsample) index[row * nsample + place] = at;
    if (count == 0 && found) first = start + __ffs(found) - 1;
    count += __popc(found);
  }
  for (int64_t place = min(count, nsample) + lane; place < nsample; place += WARP) index[row * nsample + place] = first;
}

template <class T>
__global__ void interpolate(const T* features, const int64_t* idx, const T* weight, T* out, int64_t total,
                            int64_t channels, int64_t points, int64_t queries) {
  const int64_t item = own_item();
  if (item >= total) return;
  const int64_t row = item / queries, at = (row / channels * queries + item % queries) * 3;
  const T* from = features + row * points;
  out[item] = (from[valid(idx[at], points)] * weight[at] + from[valid(idx[at + 1], points)] * weight[at + 1]) +
              from[valid(idx[at + 2], points)] * weight[at + 2];
}

// One element (b, q, j) of the weights' gradient.
template <class T>
__global__ void weigh(const T* grad, const T* features, const int64_t* idx, T* by_weight, int64_t total,
                      int64_t channels, int64_t points, int64_t queries) {
  const int64_t item = own_item();
  if (item >= total) return;
  const int64_t query = item / 3, b = query / queries, at = valid(idx[item], points);
  T sum = 0;
  for (int64_t row = b * channels; row < (b + 1) * channels; ++row)
    sum += grad[row * queries + query % queries] * features[row * points + at];
  by_weight[item] = sum;
}

}  // namespace

template <class T>
void gather_points(const Executor& run, const T* features, const int64_t* idx, T* out, int64_t batch, int64_t channels,
                   int64_t points, int64_t queries) {
  const int64_t total = batch * channels * queries;
  launch(run, "gather_points", gather<T>, blocks_for(total, THREADS), THREADS, features, idx, out, total, channels,
         points, queries);
}

template <class T>
void gather_points_backward(const Executor& run, const T* grad, const int64_t* idx, T* out, int64_t batch,
                            int64_t channels, int64_t points, int64_t queries) {
  const char* operation = "gather_points_backward";
  const Inverse named_by = invert_index(run, operation, idx, batch, points, queries);
  const int64_t total = batch * channels * points;
  launch(run, operation, collect<T, false>, blocks_for(total, THREADS), THREADS, grad, nullptr, named_by, out, total,
         channels, points, queries);
}

template <class T>
void ball_query(const Executor& run, const T* xyz, const T* new_xyz, int64_t* index, int64_t batch, int64_t points,
                int64_t queries, double radius, int64_t nsample) {
  const T limit = static_cast<T>(radius) * static_cast<T>(radius);  // rounded as pointnet2_ops does
  const int64_t rows = batch * queries;
  launch(run, "ball_query", ball<T>, blocks_for(rows, BALLS), BALLS * WARP, xyz, new_xyz, index, rows, queries,
         as_int(points, "ball_query"), limit, nsample);
}

template <class T>
void three_interpolate(const Executor& run, const T* features, const int64_t* idx, const T* weight, T* out,
                       int64_t batch, int64_t channels, int64_t points, int64_t queries) {
  const int64_t total = batch * channels * queries;
  launch(run, "three_interpolate", interpolate<T>, blocks_for(total, THREADS), THREADS, features, idx, weight, out,
         total, channels, points, queries);
}

template <class T>
void three_interpolate_backward(const Executor& run, const T* grad, const T* features, const int64_t* idx,
                                const T* weight, T* by_features, T* by_weight, int64_t batch, int64_t channels,
                                int64_t points, int64_t queries) {
  const char* operation = "three_interpolate_backward";
  const int64_t total = batch * channels * points, weights = batch * queries * 3;
  if (total) {
    const Inverse named_by = invert_index(run, operation, idx, batch, points, 3 * queries);
    launch(run, operation, collect<T, true>, blocks_for(total, THREADS), THREADS, grad, weight, named_by, by_features,
           total, channels, points, queries);
  }
  if (weights)
    launch(run, operation, weigh<T>, blocks_for(weights, THREADS), THREADS, grad, features, idx, by_weight, weights,
           channels, points, queries);
}

#define ACT_INSTANTIATE(T)                                                                                            \
  template void gather_points(const Executor&, const T*, const int64_t*, T*, int64_t, int64_t, int64_t, int64_t);     \
  template void gather_points_backward(const Executor&, const T*, const int64_t*, T*, int64_t, int64_t, int64_t,      \
                                       int64_t);                                                                      \
  template void ball_query(const Executor&, const T*, const T*, int64_t*, int64_t, int64_t, int64_t, double, int64_t); \
  template void three_interpolate(const Executor&, const T*, const int64_t*, const T*, T*, int64_t, int64_t, int64_t, \
                                  int64_t);                                                                           \
  template void three_interpolate_backward(const Executor&, const T*, const T*, const int64_t*, const T*, T*, T*,     \
                                           int64_t, int64_t, int64_t, int64_t);
ACT_INSTANTIATE(float)
ACT_INSTANTIATE(double)

}  // namespace act
