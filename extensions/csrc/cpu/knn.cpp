// Nearest neighbours: all distances of a query in the first cache, a bound on the k-th, a sort of the few below it.
#include <algorithm>
#include <cmath>

#include "../kernels.h"
#include "simd.h"

namespace act {
namespace {

constexpr int64_t MOST_BUCKETS = 1024;  // above k = 512 everything is sorted
constexpr int64_t FEW = 128;            // numbers that are faster ranked against each other than sorted

template <class T>
constexpr int64_t GROUP = 4 * LANES<T>;  // points that are passed over together where none is near

// A distance above and an index below: such keys order like (distance, index), as non-negative floats like their bits.
template <class T>
struct Key;
template <>
struct Key<float> {
  using Bits = uint32_t;
  using Type = uint64_t;
};
template <>
struct Key<double> {
  using Bits = uint64_t;
  using Type = unsigned __int128;
};
constexpr int INDEX_BITS = 32;

template <class T>
typename Key<T>::Type make_key(T distance, int64_t index) {
  typename Key<T>::Bits bits;
  std::memcpy(&bits, &distance, sizeof bits);
  return (static_cast<typename Key<T>::Type>(bits) << INDEX_BITS) | static_cast<uint32_t>(index);
}

template <class T>
T key_distance(typename Key<T>::Type key) {
  const auto bits = static_cast<typename Key<T>::Bits>(key >> INDEX_BITS);
  T distance;
  std::memcpy(&distance, &bits, sizeof distance);
  return distance;
}

// The clouds' coordinates apart: (B, N, D) → (B, D, size), padded by points that are infinitely far.
template <class T>
struct Columns {
  int64_t size, dimensions;
  Buffer<T> memory;

  Columns(const Executor& run, const T* clouds, int64_t batch, int64_t points, int64_t dims)
      : size(padded(points, GROUP<T>)), dimensions(dims), memory(batch * dims * size) {
    run.parallel(batch * dims, std::max<int64_t>(1, 16384 / size), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T* from = clouds + row / dims * points * dims + row % dims;
        T* to = memory.get() + row * size;
        for (int64_t i = 0; i < points; ++i) to[i] = from[i * dims];
        std::fill(to + points, to + size, INFINITE<T>);
      }
    });
  }

  const T* cloud(int64_t b) const { return memory.get() + b * dimensions * size; }
};

template <class T>
struct Search {
  const T* columns;  // D size
  int64_t points, size, dimensions, k, buckets;
  T* distance;       // size
  T* least;          // buckets
  typename Key<T>::Type* keys;  // size
};

// Write the squared distances to query `q` and the least of each bucket: bucket b holds all i = b modulo `buckets`.
template <class T>
ACT_INLINE void distances_to(const Search<T>& s, const T* q) {
  using V = typename Simd<T>::Vector;
  for (int64_t b = 0; b < s.buckets; ++b) s.least[b] = INFINITE<T>;
  const int64_t whole = s.buckets ? s.size / s.buckets * s.buckets : 0;
  for (int64_t i = 0, b = 0; i < s.size; i += LANES<T>, b = b + LANES<T> == s.buckets ? 0 : b + LANES<T>) {
    V sum, x;
    if (s.dimensions == 3) {
      V y, z;
      load(x, s.columns + i), load(y, s.columns + s.size + i), load(z, s.columns + 2 * s.size + i);
      x -= q[0], y -= q[1], z -= q[2];
      sum = (x * x + y * y) + z * z;
    } else {
      load(x, s.columns + i);
      x -= q[0];
      sum = x * x;
      for (int64_t d = 1; d < s.dimensions; ++d) {
        load(x, s.columns + d * s.size + i);
        x -= q[d];
        sum += x * x;
      }
    }
    sum = sum == sum ? sum : V{} + INFINITE<T>;  // what is not a number counts as infinitely far
    store(s.distance + i, sum);
    if (i < whole) {
      V least;
      load(least, s.least + b);
      least = sum < least ? sum : least;
      store(s.least + b, least);
    }
  }
}

template <class M>
ACT_INLINE bool any(const M& mask) {
  int64_t words[8];
  std::memcpy(words, &mask, sizeof words);
  return words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7];
}

// Collect the keys of all points not further than `bound` and return their number.
template <class T>
ACT_INLINE int64_t collect(const Search<T>& s, T bound) {
  using V = typename Simd<T>::Vector;
  using M = typename Simd<T>::Mask;
  int64_t count = 0;
  for (int64_t group = 0; group < s.size; group += GROUP<T>) {
    V distance;
    M near = {};
    for (int64_t i = group; i < group + GROUP<T>; i += LANES<T>) {
      load(distance, s.distance + i);
      near |= distance <= bound;
    }
    if (!any(near)) continue;
    for (int64_t i = group; i < group + GROUP<T>; i += LANES<T>) {
      load(distance, s.distance + i);
      if (!any(distance <= bound)) continue;
      for (int64_t j = i; j < std::min(i + LANES<T>, s.points); ++j) {  // padding stays out
        s.keys[count] = make_key(s.distance[j], j);
        count += s.distance[j] <= bound;
      }
    }
  }
  return count;
}

// Return a distance that at least k, and as few as can be, of the buckets' leasts do not exceed.
template <class T>
ACT_INLINE T bound_of(const Search<T>& s) {
  using V = typename Simd<T>::Vector;
  using M = typename Simd<T>::Mask;
  if (s.buckets > FEW) {
    std::nth_element(s.least, s.least + s.k - 1, s.least + s.buckets);
    return s.least[s.k - 1];
  }
  V bound = V{} + INFINITE<T>;
  for (int64_t i = 0; i < s.buckets; i += LANES<T>) {
    V least;
    load(least, s.least + i);
    M rank = {};  // minus the number of leasts that are not larger
    for (int64_t j = 0; j < s.buckets; ++j) rank += s.least[j] <= least;
    const V candidate = -rank >= M{} + static_cast<typename Simd<T>::Index>(s.k) ? least : V{} + INFINITE<T>;
    bound = candidate < bound ? candidate : bound;
  }
  T smallest = bound[0];
  for (int64_t lane = 1; lane < LANES<T>; ++lane) smallest = std::min<T>(smallest, bound[lane]);
  return smallest;
}

// Order the first k of `count` keys, all different; `keys` has room for FEW more.
ACT_INLINE void rank(uint64_t* keys, int64_t count, int64_t k) {
  typedef uint64_t V __attribute__((vector_size(64)));
  uint64_t* const sorted = keys + padded(count, 8);
  std::fill(keys + count, sorted, UINT64_MAX);
  for (int64_t i = 0; i < count; i += 8) {
    V key, place = {};
    load(key, keys + i);
    for (int64_t j = 0; j < count; ++j) place -= keys[j] < key;
    for (int64_t lane = 0; lane < 8; ++lane) sorted[place[lane]] = key[lane];  // padding lands behind the keys
  }
  std::copy(sorted, sorted + k, keys);
}

template <class K>
ACT_INLINE void order(K* keys, int64_t count, int64_t k) {
  if constexpr (std::is_same_v<K, uint64_t>) {
    if (count <= FEW) return rank(keys, count, k);
  }
  if (k < count) std::nth_element(keys, keys + (k - 1), keys + count);
  std::sort(keys, keys + k);
}

// Leave the keys of the k points nearest to query `q`, ascending, in front of `s.keys`.
template <class T>
void nearest(const Search<T>& s, const T* q) {
  distances_to(s, q);
  // k buckets have a point not further than the bound, so k points have
  if (s.buckets) return order(s.keys, collect(s, bound_of(s)), s.k);
  for (int64_t i = 0; i < s.points; ++i) s.keys[i] = make_key(s.distance[i], i);
  order(s.keys, s.points, s.k);
}

// Return how many buckets to use: at least twice k, and each of at least two points; 0: none.
template <class T>
int64_t bucket_count(int64_t points, int64_t k) {
  int64_t buckets = LANES<T>;
  while (buckets < 2 * k) buckets *= 2;
  return buckets <= MOST_BUCKETS && 2 * buckets <= points ? buckets : 0;
}

}  // namespace

template <class T>
void knn(const Executor& run, const T* ref, const T* query, T* distance, int64_t* index, int64_t batch, int64_t points,
         int64_t queries, int64_t dimensions, int64_t k) {
  const Columns<T> columns(run, ref, batch, points, dimensions);
  const int64_t buckets = bucket_count<T>(points, k);
  run.parallel(batch * queries, std::max<int64_t>(1, 16384 / columns.size), [&](int64_t begin, int64_t end) {
    const Buffer<T> distances(columns.size), least(buckets);
    const Buffer<typename Key<T>::Type> keys(columns.size + FEW + 16);
    Search<T> search{nullptr, points, columns.size, dimensions, k, buckets, distances.get(), least.get(), keys.get()};
    for (int64_t row = begin; row < end; ++row) {
      search.columns = columns.cloud(row / queries);
      nearest(search, query + row * dimensions);
      for (int64_t i = 0; i < k; ++i) {
        distance[row * k + i] = std::sqrt(key_distance<T>(keys.get()[i]));
        index[row * k + i] = static_cast<uint32_t>(keys.get()[i]);
      }
    }
  });
}

template void knn(const Executor&, const float*, const float*, float*, int64_t*, int64_t, int64_t, int64_t, int64_t,
                  int64_t);
template void knn(const Executor&, const double*, const double*, double*, int64_t*, int64_t, int64_t, int64_t, int64_t,
                  int64_t);

}  // namespace act
