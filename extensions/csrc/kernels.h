// The operators' kernels, for the CPU and for CUDA alike: raw pointers to contiguous arrays, no torch header.
// Clouds are (B, N, 3) unless a dimension D is given, features (B, C, N), indices int64. Meanings: extensions/ops.py.
#pragma once
#include <cstdint>

namespace act {

// How a kernel runs: on the CPU the caller's parallel loop, on CUDA the caller's stream and memory.
struct Executor {
#ifdef ACT_CUDA
  void* stream;
  void* (*allocate)(void* owner, int64_t bytes);
  void* owner;

  // Return memory for `count` numbers, torch's own, that lasts until the operator returns.
  template <class T>
  T* scratch(int64_t count) const {
    return static_cast<T*>(allocate(owner, count * static_cast<int64_t>(sizeof(T))));
  }
#else
  using Body = void (*)(int64_t begin, int64_t end, void* context);
  void (*loop)(int64_t count, int64_t grain, Body body, void* context);
  int64_t threads;

  // Call f(begin, end) on parts of 0 ... count - 1, each of at least `grain`.
  template <class F>
  void parallel(int64_t count, int64_t grain, const F& f) const {
    loop(count, grain, [](int64_t begin, int64_t end, void* context) { (*static_cast<const F*>(context))(begin, end); },
         const_cast<void*>(static_cast<const void*>(&f)));
  }
#endif
};

template <class T>
void furthest_point_sample(const Executor&, const T* xyz, int64_t* picked, int64_t batch, int64_t points,
                           int64_t npoint, bool skip_origin);

template <class T>
void knn(const Executor&, const T* ref, const T* query, T* distance, int64_t* index, int64_t batch, int64_t points,
         int64_t queries, int64_t dimensions, int64_t k);

template <class T>
void chamfer(const Executor&, const T* xyz1, const T* xyz2, T* dist1, T* dist2, int64_t* idx1, int64_t* idx2,
             int64_t batch, int64_t points1, int64_t points2);

template <class T>
void chamfer_backward(const Executor&, const T* grad1, const T* grad2, const T* xyz1, const T* xyz2,
                      const int64_t* idx1, const int64_t* idx2, T* out1, T* out2, int64_t batch, int64_t points1,
                      int64_t points2);

// out[b, c, q] = features[b, c, idx[b, q]]; the groups of group_points are flattened into `queries`.
template <class T>
void gather_points(const Executor&, const T* features, const int64_t* idx, T* out, int64_t batch, int64_t channels,
                   int64_t points, int64_t queries);

// out[b, c, idx[b, q]] += grad[b, c, q]; `out` is set here.
template <class T>
void gather_points_backward(const Executor&, const T* grad, const int64_t* idx, T* out, int64_t batch,
                            int64_t channels, int64_t points, int64_t queries);

template <class T>
void ball_query(const Executor&, const T* xyz, const T* new_xyz, int64_t* index, int64_t batch, int64_t points,
                int64_t queries, double radius, int64_t nsample);

template <class T>
void three_interpolate(const Executor&, const T* features, const int64_t* idx, const T* weight, T* out, int64_t batch,
                       int64_t channels, int64_t points, int64_t queries);

template <class T>
void three_interpolate_backward(const Executor&, const T* grad, const T* features, const int64_t* idx,
                                const T* weight, T* by_features, T* by_weight, int64_t batch, int64_t channels,
                                int64_t points, int64_t queries);

#ifndef ACT_CUDA
// x (P, K, C), K and C at least 1: value[p, c] = max over k of x[p, k, c], and idx[p, c] the first k where it is.
template <class T>
void max_points(const Executor&, const T* x, T* value, int64_t* idx, int64_t patches, int64_t group, int64_t channels);

// grad and idx (P, C), x (P, K, D), weight (C, D): by_x[p, idx[p, c]] += grad[p, c] weight[c] and by_weight[c] +=
// grad[p, c] x[p, idx[p, c]]; both are set here.
template <class T>
void linear_max_backward(const Executor&, const T* grad, const int64_t* idx, const T* x, const T* weight, T* by_x,
                         T* by_weight, int64_t patches, int64_t group, int64_t channels, int64_t width);

// x (P, K, C), offset (P, C) or null, weight, bias, mean and variance (C): y = ReLU of the batch norm of x + offset.
template <class T>
void norm_relu(const Executor&, const T* x, const T* offset, const T* weight, const T* bias, double eps, T* y, T* mean,
               T* variance, int64_t patches, int64_t group, int64_t channels);

template <class T>
void norm_relu_backward(const Executor&, const T* grad, const T* x, const T* offset, const T* weight, const T* bias,
                        const T* mean, const T* variance, double eps, T* by_x, T* by_offset, T* by_weight, T* by_bias,
                        int64_t patches, int64_t group, int64_t channels);
#endif

}  // namespace act
