// Vectors of 64 bytes by the compilers' extension: they become whatever registers the processor has.
#pragma once
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

// Compile a function for several generations of x86-64 and pick one when the library is loaded, so that one file
// serves every machine. Products are never fused into sums (-ffp-contract=off): all of them give the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && defined(__linux__)
#define ACT_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define ACT_CLONES
#endif
#define ACT_INLINE inline __attribute__((always_inline))

namespace act {

template <class T>
struct Simd;
template <>
struct Simd<float> {
  typedef float Vector __attribute__((vector_size(64)));
  typedef int32_t Mask __attribute__((vector_size(64)));
  using Index = int32_t;
};
template <>
struct Simd<double> {
  typedef double Vector __attribute__((vector_size(64)));
  typedef int64_t Mask __attribute__((vector_size(64)));
  using Index = int64_t;
};
template <class T>
constexpr int64_t LANES = 64 / sizeof(T);

template <class V, class S>
ACT_INLINE void load(V& v, const S* from) {
  std::memcpy(&v, from, sizeof(V));
}

template <class V, class S>
ACT_INLINE void store(S* to, const V& v) {
  std::memcpy(to, &v, sizeof(V));
}

template <class T>
constexpr T INFINITE = std::numeric_limits<T>::infinity();

inline int64_t padded(int64_t count, int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

}  // namespace act
