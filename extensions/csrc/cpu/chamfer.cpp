// Chamfer distance: queries in the lanes of vectors, the other cloud point by point; no distance matrix.
#include <algorithm>

#include "../kernels.h"
#include "simd.h"

namespace act {
namespace {

constexpr int64_t GRAIN = 1 << 15;  // distances that are worth a thread

// Nearest of `others` (N, 3) to one query where coordinates are not finite: NaN is the least of all.
template <class T>
void nearest_of_any(const T* q, const T* others, int64_t points, T* dist, int64_t* idx) {
  *dist = INFINITE<T>, *idx = 0;
  for (int64_t j = 0; j < points; ++j) {
    const T dx = q[0] - others[3 * j], dy = q[1] - others[3 * j + 1], dz = q[2] - others[3 * j + 2];
    const T distance = (dx * dx + dy * dy) + dz * dz;
    if (*dist == *dist && !(distance >= *dist)) *dist = distance, *idx = j;
  }
}

// Nearest of `others` (N, 3) to one or more vectors of queries.
template <class T, int64_t VECTORS>
ACT_INLINE void nearest_of_block(const T* queries, int64_t count, const T* others, int64_t points, T poison, T* dist,
                                 int64_t* idx) {
  using V = typename Simd<T>::Vector;
  using M = typename Simd<T>::Mask;
  using I = typename Simd<T>::Index;
  T columns[3][VECTORS * LANES<T>] = {};
  for (int64_t i = 0; i < count; ++i)
    for (int64_t axis = 0; axis < 3; ++axis) columns[axis][i] = queries[3 * i + axis];
  V x[VECTORS], y[VECTORS], z[VECTORS], best[VECTORS];
  M where[VECTORS];
  for (int64_t v = 0; v < VECTORS; ++v) {
    load(x[v], columns[0] + v * LANES<T>), load(y[v], columns[1] + v * LANES<T>), load(z[v], columns[2] + v * LANES<T>);
    best[v] = V{} + INFINITE<T>;
    where[v] = M{};
  }
  for (int64_t j = 0; j < points; ++j) {
    const T *p = others + 3 * j;
    for (int64_t v = 0; v < VECTORS; ++v) {
      const V dx = x[v] - p[0], dy = y[v] - p[1], dz = z[v] - p[2];
      const V distance = (dx * dx + dy * dy) + dz * dz;
      const M nearer = distance < best[v];
      best[v] = nearer ? distance : best[v];
      where[v] = nearer ? M{} + static_cast<I>(j) : where[v];
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t v = i / LANES<T>, lane = i % LANES<T>;
    const T own = (columns[0][i] - columns[0][i]) + (columns[1][i] - columns[1][i]) + (columns[2][i] - columns[2][i]);
    if (own + poison == 0)
      dist[i] = best[v][lane], idx[i] = where[v][lane];
    else  // the query or any other point is not finite
      nearest_of_any(queries + 3 * i, others, points, dist + i, idx + i);
  }
}

template <class T>
void nearest(const T* queries, int64_t count, const T* others, int64_t points, T* dist, int64_t* idx) {
  T poison = 0;
  for (int64_t i = 0; i < 3 * points; ++i) poison += others[i] - others[i];
  for (int64_t i = 0; i < count;) {
    const int64_t left = count - i;
    if (left > LANES<T>) {
      const int64_t block = std::min(left, 2 * LANES<T>);
      nearest_of_block<T, 2>(queries + 3 * i, block, others, points, poison, dist + i, idx + i);
      i += block;
    } else {
      nearest_of_block<T, 1>(queries + 3 * i, left, others, points, poison, dist + i, idx + i);
      i += left;
    }
  }
}

// One direction, by parts of PART queries of a cloud, so that a single large cloud occupies all threads.
constexpr int64_t PART = 256;

template <class T>
void one_way(const Executor& run, const T* queries, const T* others, T* dist, int64_t* idx, int64_t batch,
             int64_t count, int64_t points) {
  const int64_t parts = (count + PART - 1) / PART;
  const int64_t cost = std::min(count, PART) * points;
  run.parallel(batch * parts, std::max<int64_t>(1, GRAIN / std::max<int64_t>(cost, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = item / parts, from = item % parts * PART, row = b * count + from;
      nearest(queries + 3 * row, std::min(PART, count - from), others + 3 * points * b, points, dist + row, idx + row);
    }
  });
}

// Add the gradient of `weight` times the squared distances from `from` to the points `idx` of `to`.
template <class T>
void pull(const T* grad, const T* from, const T* to, const int64_t* idx, T* out_from, T* out_to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const T weight = 2 * grad[i];
    for (int64_t axis = 0; axis < 3; ++axis) {
      const T step = (from[3 * i + axis] - to[3 * idx[i] + axis]) * weight;
      out_from[3 * i + axis] += step;
      out_to[3 * idx[i] + axis] -= step;
    }
  }
}

}  // namespace

template <class T>
void chamfer(const Executor& run, const T* xyz1, const T* xyz2, T* dist1, T* dist2, int64_t* idx1, int64_t* idx2,
             int64_t batch, int64_t points1, int64_t points2) {
  one_way(run, xyz1, xyz2, dist1, idx1, batch, points1, points2);
  one_way(run, xyz2, xyz1, dist2, idx2, batch, points2, points1);
}

template <class T>
void chamfer_backward(const Executor& run, const T* grad1, const T* grad2, const T* xyz1, const T* xyz2,
                      const int64_t* idx1, const int64_t* idx2, T* out1, T* out2, int64_t batch, int64_t points1,
                      int64_t points2) {
  const int64_t grain = std::max<int64_t>(1, GRAIN / (8 * (points1 + points2)));
  run.parallel(batch, grain, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t row1 = b * points1, row2 = b * points2;
      T *to1 = out1 + 3 * row1, *to2 = out2 + 3 * row2;
      std::fill(to1, to1 + 3 * points1, T(0));
      std::fill(to2, to2 + 3 * points2, T(0));
      pull(grad1 + row1, xyz1 + 3 * row1, xyz2 + 3 * row2, idx1 + row1, to1, to2, points1);
      pull(grad2 + row2, xyz2 + 3 * row2, xyz1 + 3 * row1, idx2 + row2, to2, to1, points2);
    }
  });
}

#define ACT_INSTANTIATE(T)                                                                                           \
  template void chamfer(const Executor&, const T*, const T*, T*, T*, int64_t*, int64_t*, int64_t, int64_t, int64_t); \
  template void chamfer_backward(const Executor&, const T*, const T*, const T*, const T*, const int64_t*,            \
                                 const int64_t*, T*, T*, int64_t, int64_t, int64_t);
ACT_INSTANTIATE(float)
ACT_INSTANTIATE(double)

}  // namespace act
