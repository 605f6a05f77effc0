// Vectors of 64 bytes by the compilers' extension: they become whatever registers the processor has.
#pragma once
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>

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

// Memory for `count` numbers, not initialised, at the start of a cache line: vectors that cross lines cost twice.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) : data_(static_cast<T*>(::operator new(sizeof(T) * count, std::align_val_t(64)))) {}
  ~Buffer() { ::operator delete(data_, std::align_val_t(64)); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

inline int64_t padded(int64_t count, int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

}  // namespace act
