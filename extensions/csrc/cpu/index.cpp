// Operators that follow indices: gathering, balls, interpolation.
#include <algorithm>
#include <vector>

#include "../kernels.h"
#include "simd.h"

namespace act {
namespace {

constexpr int64_t GRAIN = 1 << 14;  // elements that are worth a thread

int64_t grain(int64_t elements_each) { return std::max<int64_t>(1, GRAIN / std::max<int64_t>(elements_each, 1)); }

// Write the first indices, at most `nsample`, of the points whose squared distance to the centre is below `limit`;
// padding is infinitely far. Return their number.
template <class T>
int64_t first_within(const T* x, const T* y, const T* z, int64_t size, const T* centre, T limit, int64_t nsample,
                     int64_t* found) {
  using V = typename Simd<T>::Vector;
  using M = typename Simd<T>::Mask;
  int64_t count = 0;
  for (int64_t i = 0; i < size && count < nsample; i += LANES<T>) {
    V dx, dy, dz;
    load(dx, x + i), load(dy, y + i), load(dz, z + i);
    dx = centre[0] - dx, dy = centre[1] - dy, dz = centre[2] - dz;
    const M inside = (dx * dx + dy * dy) + dz * dz < limit;
    for (int64_t lane = 0; lane < LANES<T> && count < nsample; ++lane) {
      found[count] = i + lane;
      count += inside[lane] != 0;
    }
  }
  return count;
}

}  // namespace

template <class T>
void gather_points(const Executor& run, const T* features, const int64_t* idx, T* out, int64_t batch, int64_t channels,
                   int64_t points, int64_t queries) {
  run.parallel(batch * channels, grain(queries), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* from = features + row * points;
      const int64_t* at = idx + row / channels * queries;
      T* to = out + row * queries;
      for (int64_t q = 0; q < queries; ++q) to[q] = from[at[q]];
    }
  });
}

template <class T>
void gather_points_backward(const Executor& run, const T* grad, const int64_t* idx, T* out, int64_t batch,
                            int64_t channels, int64_t points, int64_t queries) {
  run.parallel(batch * channels, grain(points + queries), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* from = grad + row * queries;
      const int64_t* at = idx + row / channels * queries;
      T* to = out + row * points;
      std::fill(to, to + points, T(0));
      for (int64_t q = 0; q < queries; ++q) to[at[q]] += from[q];
    }
  });
}

template <class T>
void ball_query(const Executor& run, const T* xyz, const T* new_xyz, int64_t* index, int64_t batch, int64_t points,
                int64_t queries, double radius, int64_t nsample) {
  const T limit = static_cast<T>(radius) * static_cast<T>(radius);  // rounded as pointnet2_ops does
  const int64_t size = padded(points, LANES<T>);
  run.parallel(batch, 1, [&](int64_t begin, int64_t end) {
    const Buffer<T> memory(3 * size);
    T* columns = memory.get();
    std::fill(columns, columns + 3 * size, INFINITE<T>);
    std::vector<int64_t> found(nsample + 1);
    for (int64_t b = begin; b < end; ++b) {
      for (int64_t i = 0; i < points; ++i)
        for (int64_t axis = 0; axis < 3; ++axis) columns[axis * size + i] = xyz[3 * (b * points + i) + axis];
      for (int64_t row = b * queries; row < (b + 1) * queries; ++row) {
        const int64_t count = first_within(columns, columns + size, columns + 2 * size, size, new_xyz + 3 * row, limit,
                                           nsample, found.data());
        int64_t* to = index + row * nsample;
        std::copy(found.begin(), found.begin() + count, to);
        std::fill(to + count, to + nsample, count ? found[0] : 0);
      }
    }
  });
}

template <class T>
void three_interpolate(const Executor& run, const T* features, const int64_t* idx, const T* weight, T* out,
                       int64_t batch, int64_t channels, int64_t points, int64_t queries) {
  run.parallel(batch * channels, grain(3 * queries), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* from = features + row * points;
      const int64_t* at = idx + row / channels * queries * 3;
      const T* share = weight + row / channels * queries * 3;
      T* to = out + row * queries;
      for (int64_t q = 0; q < queries; ++q, at += 3, share += 3)
        to[q] = (from[at[0]] * share[0] + from[at[1]] * share[1]) + from[at[2]] * share[2];
    }
  });
}

template <class T>
void three_interpolate_backward(const Executor& run, const T* grad, const T* features, const int64_t* idx,
                                const T* weight, T* by_features, T* by_weight, int64_t batch, int64_t channels,
                                int64_t points, int64_t queries) {
  run.parallel(batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t* at = idx + b * queries * 3;
      const T* share = weight + b * queries * 3;
      T* to_weight = by_weight + b * queries * 3;
      std::fill(to_weight, to_weight + 3 * queries, T(0));
      for (int64_t row = b * channels; row < (b + 1) * channels; ++row) {
        T* to = by_features + row * points;
        std::fill(to, to + points, T(0));
        for (int64_t q = 0; q < queries; ++q) {
          const T step = grad[row * queries + q];
          for (int64_t j = 3 * q; j < 3 * q + 3; ++j) {
            to[at[j]] += step * share[j];
            to_weight[j] += step * features[row * points + at[j]];
          }
        }
      }
    }
  });
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
