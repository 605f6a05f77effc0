// Furthest point sampling: the points' distances to the picked ones, updated and searched in one pass a pick.
#include <vector>

#include "../kernels.h"
#include "simd.h"

namespace act {
namespace {

constexpr double ORIGIN = 1e-3;      // squared norm up to which pointnet2_ops takes a point for padding
constexpr int64_t SPLIT = 1 << 16;   // points from which several threads share one cloud

template <class T>
struct Cloud {  // coordinates apart, padded to whole vectors; padding is never picked
  int64_t size;
  Buffer<T> memory;
  T *x, *y, *z, *nearest;

  explicit Cloud(int64_t points) : size(padded(points, LANES<T>)), memory(4 * size) {
    x = memory.get(), y = x + size, z = y + size, nearest = z + size;
  }

  void fill(const T* xyz, int64_t points, bool skip_origin) {
    for (int64_t i = 0; i < size; ++i) {
      const bool real = i < points;
      x[i] = real ? xyz[3 * i] : 0, y[i] = real ? xyz[3 * i + 1] : 0, z[i] = real ? xyz[3 * i + 2] : 0;
      const bool finite = (x[i] - x[i]) + (y[i] - y[i]) + (z[i] - z[i]) == 0;
      const bool skipped =
          !finite || (skip_origin && (x[i] * x[i] + y[i] * y[i]) + z[i] * z[i] <= static_cast<T>(ORIGIN));
      nearest[i] = real && !skipped ? INFINITE<T> : -1;  // -1 is below every candidate
    }
  }
};

template <class T>
struct Best {
  T value;
  int64_t index;
};

// Take the point p among the picked ones and return the furthest of begin ... end - 1, whole vectors.
template <class T>
Best<T> update(const Cloud<T>& cloud, const T* p, int64_t begin, int64_t end) {
  using V = typename Simd<T>::Vector;
  using M = typename Simd<T>::Mask;
  using I = typename Simd<T>::Index;
  V best = V{} - 2;
  M where = M{} + static_cast<I>(begin / LANES<T>);
  for (int64_t i = begin; i < end; i += LANES<T>) {
    V x, y, z, nearest;
    load(x, cloud.x + i), load(y, cloud.y + i), load(z, cloud.z + i), load(nearest, cloud.nearest + i);
    x -= p[0], y -= p[1], z -= p[2];
    const V distance = (x * x + y * y) + z * z;
    nearest = distance < nearest ? distance : nearest;
    store(cloud.nearest + i, nearest);
    const M further = nearest > best;
    best = further ? nearest : best;
    where = further ? M{} + static_cast<I>(i / LANES<T>) : where;
  }
  Best<T> result{-2, begin};
  for (int64_t lane = 0; lane < LANES<T>; ++lane) {
    const int64_t index = static_cast<int64_t>(where[lane]) * LANES<T> + lane;
    if (best[lane] > result.value || (best[lane] == result.value && index < result.index))
      result = {best[lane], index};
  }
  return result;
}

// The same by all threads.
template <class T>
Best<T> update_shared(const Executor& run, const Cloud<T>& cloud, const T* p, std::vector<Best<T>>& parts) {
  const int64_t count = static_cast<int64_t>(parts.size());
  const int64_t share = padded((cloud.size + count - 1) / count, LANES<T>);
  run.parallel(count, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      const int64_t begin = part * share, end = begin + share < cloud.size ? begin + share : cloud.size;
      parts[part] = begin < end ? update(cloud, p, begin, end) : Best<T>{-2, 0};
    }
  });
  Best<T> best = parts[0];
  for (const Best<T>& part : parts)
    if (part.value > best.value) best = part;  // parts are in the order of their indices
  return best;
}

template <class T>
void sample(const Executor& run, Cloud<T>& cloud, const T* xyz, int64_t* picked, int64_t points, int64_t npoint,
            bool skip_origin, bool shared) {
  cloud.fill(xyz, points, skip_origin);
  std::vector<Best<T>> parts(shared ? run.threads : 0);
  picked[0] = 0;
  for (int64_t step = 1; step < npoint; ++step) {
    const T* last = xyz + 3 * picked[step - 1];
    picked[step] = (shared ? update_shared(run, cloud, last, parts) : update(cloud, last, 0, cloud.size)).index;
  }
}

}  // namespace

template <class T>
void furthest_point_sample(const Executor& run, const T* xyz, int64_t* picked, int64_t batch, int64_t points,
                           int64_t npoint, bool skip_origin) {
  const bool shared = batch < run.threads && points >= SPLIT;
  const auto clouds = [&](int64_t begin, int64_t end) {
    Cloud<T> cloud(points);
    for (int64_t b = begin; b < end; ++b)
      sample(run, cloud, xyz + 3 * points * b, picked + npoint * b, points, npoint, skip_origin, shared);
  };
  if (shared)
    clouds(0, batch);
  else
    run.parallel(batch, 1, clouds);
}

template void furthest_point_sample(const Executor&, const float*, int64_t*, int64_t, int64_t, int64_t, bool);
template void furthest_point_sample(const Executor&, const double*, int64_t*, int64_t, int64_t, int64_t, bool);

}  // namespace act
