// Batch norm in training, then a ReLU, of features to which an offset a patch is added first: two passes over the
// features forward and two backward, where single layers take a pass and a half as many again for each of the three.
#include <algorithm>
#include <cmath>
#include <vector>

#include "../kernels.h"
#include "simd.h"

namespace act {
namespace {

constexpr int64_t BLOCK = 32;  // rows that are summed in T before they are added to sums in double

// The rows of features (patches · group, channels), and what is added to those of a patch, if anything.
template <class T>
struct Rows {
  const T* x;
  const T* offset;
  int64_t group, channels;

  // Call f(c, value) for each channel of a row.
  template <class F>
  ACT_INLINE void each(int64_t row, const F& f) const {
    const T* __restrict from = x + row * channels;
    if (offset) {
      const T* __restrict add = offset + row / group * channels;
#pragma GCC ivdep
      for (int64_t c = 0; c < channels; ++c) f(c, from[c] + add[c]);
    } else {
#pragma GCC ivdep
      for (int64_t c = 0; c < channels; ++c) f(c, from[c]);
    }
  }
};

// Call f(part, first row, last row) for a part of whole patches for each thread.
template <class F>
void for_parts(const Executor& run, int64_t parts, int64_t patches, int64_t group, const F& f) {
  run.parallel(parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part)
      f(part, part * patches / parts * group, (part + 1) * patches / parts * group);
  });
}

int64_t count_parts(const Executor& run, int64_t patches) {
  return std::max<int64_t>(1, std::min(run.threads, patches));
}

// Add to `mean` and `squares` (of differences from it), over `count` rows so far, those of rows begin … end - 1.
template <class T>
void add_moments(const Rows<T>& rows, int64_t begin, int64_t end, double count, double* mean, double* squares) {
  const int64_t channels = rows.channels;
  const Buffer<T> memory(2 * channels);
  T *__restrict own_mean = memory.get(), *__restrict own_squares = own_mean + channels;
  const T size = end - begin;
  std::fill(memory.get(), memory.get() + 2 * channels, T(0));
  for (int64_t row = begin; row < end; ++row) rows.each(row, [&](int64_t c, T value) { own_mean[c] += value; });
  for (int64_t c = 0; c < channels; ++c) own_mean[c] /= size;
  for (int64_t row = begin; row < end; ++row)
    rows.each(row, [&](int64_t c, T value) { own_squares[c] += (value - own_mean[c]) * (value - own_mean[c]); });
  const double share = size / (count + size), both = count * share;
  for (int64_t c = 0; c < channels; ++c) {
    const double difference = own_mean[c] - mean[c];
    mean[c] += difference * share;
    squares[c] += own_squares[c] + difference * difference * both;
  }
}

}  // namespace

template <class T>
void norm_relu(const Executor& run, const T* x, const T* offset, const T* weight, const T* bias, double eps, T* y,
               T* mean, T* variance, int64_t patches, int64_t group, int64_t channels) {
  const Rows<T> rows{x, offset, group, channels};
  const int64_t parts = count_parts(run, patches);
  std::vector<double> means(parts * channels, 0.0), squares(parts * channels, 0.0), counts(parts, 0.0);
  for_parts(run, parts, patches, group, [&](int64_t part, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row += BLOCK) {
      const int64_t last = std::min(row + BLOCK, end);
      add_moments(rows, row, last, counts[part], &means[part * channels], &squares[part * channels]);
      counts[part] += last - row;
    }
  });
  const double total = patches * group;
  std::vector<T> scale(channels), shift(channels);
  for (int64_t c = 0; c < channels; ++c) {
    double all = 0, sum = 0;
    for (int64_t part = 0; part < parts; ++part) all += means[part * channels + c] * counts[part];
    all /= total;
    for (int64_t part = 0; part < parts; ++part) {
      const double difference = means[part * channels + c] - all;
      sum += squares[part * channels + c] + difference * difference * counts[part];
    }
    mean[c] = all, variance[c] = sum / total;
    scale[c] = weight[c] / std::sqrt(variance[c] + static_cast<T>(eps));
    shift[c] = bias[c] - mean[c] * scale[c];
  }
  for_parts(run, parts, patches, group, [&](int64_t, int64_t begin, int64_t end) {
    const T *__restrict by = scale.data(), *__restrict plus = shift.data();
    for (int64_t row = begin; row < end; ++row) {
      T* __restrict to = y + row * channels;
      rows.each(row, [=](int64_t c, T value) {
        const T normed = value * by[c] + plus[c];
        to[c] = normed < 0 ? T(0) : normed;  // not a number stays one
      });
    }
  });
}

template <class T>
void norm_relu_backward(const Executor& run, const T* grad, const T* x, const T* offset, const T* weight,
                        const T* bias, const T* mean, const T* variance, double eps, T* by_x, T* by_offset,
                        T* by_weight, T* by_bias, int64_t patches, int64_t group, int64_t channels) {
  const Rows<T> rows{x, offset, group, channels};
  const int64_t parts = count_parts(run, patches);
  std::vector<T> inverse(channels), scale(channels), shift(channels);
  for (int64_t c = 0; c < channels; ++c) {
    inverse[c] = 1 / std::sqrt(variance[c] + static_cast<T>(eps));
    scale[c] = weight[c] / std::sqrt(variance[c] + static_cast<T>(eps));  // as forward, so that the same values pass
    shift[c] = bias[c] - mean[c] * scale[c];
  }
  std::vector<double> sums(parts * 2 * channels, 0.0);  // of the gradients that pass, and of these times x - mean
  for_parts(run, parts, patches, group, [&](int64_t part, int64_t begin, int64_t end) {
    const Buffer<T> memory(2 * channels);
    T *__restrict plain = memory.get(), *__restrict times = plain + channels;
    const T *__restrict by = scale.data(), *__restrict plus = shift.data(), *__restrict middle = mean;
    for (int64_t first = begin; first < end; first += BLOCK) {
      std::fill(memory.get(), memory.get() + 2 * channels, T(0));
      for (int64_t row = first; row < std::min(first + BLOCK, end); ++row) {
        const T* __restrict from = grad + row * channels;
        rows.each(row, [=](int64_t c, T value) {
          const T given = from[c], passed = value * by[c] + plus[c] > 0 ? given : T(0);
          plain[c] += passed, times[c] += passed * (value - middle[c]);
        });
      }
      for (int64_t c = 0; c < 2 * channels; ++c) sums[part * 2 * channels + c] += memory.get()[c];
    }
  });
  const double total = patches * group;
  std::vector<T> average(channels), slope(channels);
  for (int64_t c = 0; c < channels; ++c) {
    double plain = 0, times = 0;
    for (int64_t part = 0; part < parts; ++part)
      plain += sums[part * 2 * channels + c], times += sums[(part * 2 + 1) * channels + c];
    by_bias[c] = plain, by_weight[c] = times * inverse[c];
    average[c] = plain / total, slope[c] = times * inverse[c] * inverse[c] / total;
  }
  for_parts(run, parts, patches, group, [&](int64_t, int64_t begin, int64_t end) {
    const T *__restrict by = scale.data(), *__restrict plus = shift.data(), *__restrict middle = mean;
    const T *__restrict less = average.data(), *__restrict lean = slope.data();
    for (int64_t row = begin; row < end; ++row) {
      const T* __restrict from = grad + row * channels;
      T* __restrict to = by_x + row * channels;
      rows.each(row, [=](int64_t c, T value) {
        const T given = from[c], passed = value * by[c] + plus[c] > 0 ? given : T(0);
        to[c] = by[c] * (passed - less[c] - (value - middle[c]) * lean[c]);
      });
      if (!offset) continue;
      T* __restrict sum = by_offset + row / group * channels;
      if (row % group == 0) std::fill(sum, sum + channels, T(0));
      for (int64_t c = 0; c < channels; ++c) sum[c] += to[c];
    }
  });
}

#define ACT_INSTANTIATE(T)                                                                                       \
  template void norm_relu(const Executor&, const T*, const T*, const T*, const T*, double, T*, T*, T*, int64_t,  \
                          int64_t, int64_t);                                                                     \
  template void norm_relu_backward(const Executor&, const T*, const T*, const T*, const T*, const T*, const T*,  \
                                   const T*, double, T*, T*, T*, T*, int64_t, int64_t, int64_t);
ACT_INSTANTIATE(float)
ACT_INSTANTIATE(double)
#undef ACT_INSTANTIATE

}  // namespace act
