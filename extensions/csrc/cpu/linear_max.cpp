// The maximum of features over the points of a patch, and the gradient of a linear layer before it. The gradient reaches
// one point a channel, so that 1 / K of a matrix product's work is left.
#include <algorithm>

#include "../kernels.h"
#include "simd.h"

namespace act {
namespace {

constexpr int64_t GRAIN = 1 << 15;  // features a thread looks at, at least, so that starting it pays
constexpr int64_t ROWS = 128;       // points at a time, so that a strip of them and of their gradients stays in the L1 cache

// A strip of two vectors of `columns` of a matrix whose rows are `width` apart; what is beyond its edge is 0.
template <class T>
void copy_in(const T* from, int64_t width, int64_t columns, T* strip, int64_t rows) {
  constexpr int64_t STRIP = 2 * LANES<T>;
  for (int64_t row = 0; row < rows; ++row) {
    const T* source = from + row * width;
    T* target = strip + row * STRIP;
    std::copy(source, source + columns, target);
    std::fill(target + columns, target + STRIP, T(0));
  }
}

template <class T>
void copy_out(const T* strip, int64_t rows, T* to, int64_t width, int64_t columns) {
  for (int64_t row = 0; row < rows; ++row)
    std::copy(strip + row * 2 * LANES<T>, strip + row * 2 * LANES<T> + columns, to + row * width);
}

// by_x[index[p, c]] += grad[p, c] weight[c] and by_weight[c] += grad[p, c] x[index[p, c]] for a few patches p of `group`
// points and all channels c, everything a strip wide.
template <class T>
void add_patches(const T* grad, const int64_t* index, const T* x, const T* weight, T* by_x, T* by_weight,
                 int64_t patches, int64_t group, int64_t channels) {
  using V = typename Simd<T>::Vector;
  constexpr int64_t HALF = LANES<T>, STRIP = 2 * HALF;
  for (int64_t c = 0; c < channels; ++c) {
    V w0, w1, sum0, sum1;
    load(w0, weight + c * STRIP), load(w1, weight + c * STRIP + HALF);
    load(sum0, by_weight + c * STRIP), load(sum1, by_weight + c * STRIP + HALF);
    for (int64_t p = 0; p < patches; ++p) {
      const T g = grad[p * channels + c];
      const int64_t at = (p * group + index[p * channels + c]) * STRIP;
      V x0, x1, y0, y1;
      load(x0, x + at), load(x1, x + at + HALF);
      load(y0, by_x + at), load(y1, by_x + at + HALF);
      sum0 += x0 * g, sum1 += x1 * g;
      y0 += w0 * g, y1 += w1 * g;
      store(by_x + at, y0), store(by_x + at + HALF, y1);
    }
    store(by_weight + c * STRIP, sum0), store(by_weight + c * STRIP + HALF, sum1);
  }
}

// The largest of the first `columns` of two vectors over the rows of a patch, and which row it is in.
template <class T>
void max_strip(const T* x, T* value, int64_t* index, int64_t group, int64_t channels, int64_t columns) {
  using V = typename Simd<T>::Vector;
  using M = typename Simd<T>::Mask;
  using I = typename Simd<T>::Index;
  constexpr int64_t HALF = LANES<T>;
  T row[2 * HALF] = {};
  V best[2], next[2];
  M where[2] = {M{}, M{}};
  const auto read = [&](int64_t point, V* to) {
    const T* from = x + point * channels;
    if (columns < 2 * HALF) std::copy(from, from + columns, row), from = row;
    load(to[0], from), load(to[1], from + HALF);
  };
  read(0, best);
  for (int64_t point = 1; point < group; ++point) {
    read(point, next);
    for (int half = 0; half < 2; ++half) {
      const M above = (next[half] > best[half]) | (next[half] != next[half]);  // what is not a number is passed on
      best[half] = above ? next[half] : best[half];
      where[half] = above ? M{} + static_cast<I>(point) : where[half];
    }
  }
  I places[2 * HALF];
  store(row, best[0]), store(row + HALF, best[1]);
  store(places, where[0]), store(places + HALF, where[1]);
  std::copy(row, row + columns, value);
  std::copy(places, places + columns, index);
}

}  // namespace

template <class T>
void max_points(const Executor& run, const T* x, T* value, int64_t* index, int64_t patches, int64_t group,
                int64_t channels) {
  constexpr int64_t STRIP = 2 * LANES<T>;
  run.parallel(patches, std::max<int64_t>(1, GRAIN / (group * channels)), [&](int64_t begin, int64_t end) {
    for (int64_t patch = begin; patch < end; ++patch)
      for (int64_t c = 0; c < channels; c += STRIP)
        max_strip(x + patch * group * channels + c, value + patch * channels + c, index + patch * channels + c, group,
                  channels, std::min(STRIP, channels - c));
  });
}

template void max_points(const Executor&, const float*, float*, int64_t*, int64_t, int64_t, int64_t);
template void max_points(const Executor&, const double*, double*, int64_t*, int64_t, int64_t, int64_t);

template <class T>
void linear_max_backward(const Executor& run, const T* grad, const int64_t* index, const T* x, const T* weight,
                         T* by_x, T* by_weight, int64_t patches, int64_t group, int64_t channels, int64_t width) {
  constexpr int64_t STRIP = 2 * LANES<T>;
  const int64_t together = std::max<int64_t>(1, ROWS / group);
  // a part of the patches for each thread; their sums are added in order, so that a number of threads gives the same bits
  const int64_t parts = std::max<int64_t>(1, std::min(run.threads, patches));
  const Buffer<T> sums(parts * channels * width);
  run.parallel(parts, 1, [&](int64_t first, int64_t last) {
    const Buffer<T> memory((2 * together * group + 2 * channels) * STRIP);
    T *strip_x = memory.get(), *strip_by_x = strip_x + together * group * STRIP;
    T *strip_weight = strip_by_x + together * group * STRIP, *strip_by_weight = strip_weight + channels * STRIP;
    for (int64_t part = first; part < last; ++part) {
      const int64_t begin = part * patches / parts, end = (part + 1) * patches / parts;
      for (int64_t column = 0; column < width; column += STRIP) {
        const int64_t columns = std::min(STRIP, width - column);
        copy_in(weight + column, width, columns, strip_weight, channels);
        std::fill(strip_by_weight, strip_by_weight + channels * STRIP, T(0));
        for (int64_t p = begin; p < end; p += together) {
          const int64_t now = std::min(together, end - p), rows = now * group;
          copy_in(x + p * group * width + column, width, columns, strip_x, rows);
          std::fill(strip_by_x, strip_by_x + rows * STRIP, T(0));
          add_patches(grad + p * channels, index + p * channels, strip_x, strip_weight, strip_by_x, strip_by_weight,
                      now, group, channels);
          copy_out(strip_by_x, rows, by_x + p * group * width + column, width, columns);
        }
        copy_out(strip_by_weight, channels, sums.get() + part * channels * width + column, width, columns);
      }
    }
  });
  std::copy(sums.get(), sums.get() + channels * width, by_weight);
  for (int64_t part = 1; part < parts; ++part)
    for (int64_t i = 0; i < channels * width; ++i) by_weight[i] += sums.get()[part * channels * width + i];
}

template void linear_max_backward(const Executor&, const float*, const int64_t*, const float*, const float*, float*,
                                  float*, int64_t, int64_t, int64_t, int64_t);
template void linear_max_backward(const Executor&, const double*, const int64_t*, const double*, const double*,
                                  double*, double*, int64_t, int64_t, int64_t, int64_t);

}  // namespace act
