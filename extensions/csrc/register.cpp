// The operators for torch, on the CPU or (with ACT_CUDA) on CUDA, through LibTorch's stable ABI: one source compiles in
// seconds and serves every later torch. Shapes and types are checked in extensions/ops.py.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/shim_utils.h>

#include <optional>
#include <tuple>
#include <vector>

#include "kernels.h"

#ifdef ACT_CUDA
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>
#ifndef ACT_KEY  // the tests run the CUDA kernels without a GPU, under another key
#define ACT_KEY CUDA
#endif
#else
#define ACT_KEY CPU
#endif

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

#ifdef ACT_CUDA

// Works on the device of `tensor`, on its current stream, in memory of torch's allocator.
struct Scope {
  torch::stable::accelerator::DeviceGuard guard;
  const Tensor& like;
  mutable std::vector<Tensor> scratch;
  act::Executor run;

  explicit Scope(const Tensor& tensor) : guard(tensor.get_device_index()), like(tensor) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &run.stream));
    run.owner = this;
    run.allocate = [](void* owner, int64_t bytes) {
      Scope& scope = *static_cast<Scope*>(owner);
      scope.scratch.push_back(torch::stable::new_empty(scope.like, {bytes}, ScalarType::Byte));
      return scope.scratch.back().mutable_data_ptr();
    };
  }
  Scope(const Scope&) = delete;
};

void check_index(const Tensor&, int64_t) {}  // the kernels assert it, as torch's do

#else

struct Scope {
  act::Executor run;

  explicit Scope(const Tensor&) {
    run.threads = torch::stable::get_num_threads();
    run.loop = [](int64_t count, int64_t grain, act::Executor::Body body, void* context) {
      torch::stable::parallel_for(0, count, grain,
                                  [&](int64_t begin, int64_t end) { body(begin, end, context); });
    };
  }
};

// Raise unless all of the contiguous `idx` are from 0 to `points` - 1.
void check_index(const Tensor& idx, int64_t points) {
  const int64_t* values = idx.const_data_ptr<int64_t>();
  const int64_t count = idx.numel();
  uint64_t most = 0;  // a negative index is a huge one
  for (int64_t i = 0; i < count; ++i) most = most < static_cast<uint64_t>(values[i]) ? values[i] : most;
  STD_TORCH_CHECK(count == 0 || most < static_cast<uint64_t>(points), "index ", static_cast<int64_t>(most),
                  " is out of bounds: there are ", points, " points");
}

#endif

// Raise unless all are on one device: a kernel would follow the pointer of another.
template <class... Tensors>
void check_device(const Tensor& first, const Tensors&... others) {
  STD_TORCH_CHECK(((first.device() == others.device()) && ...), "the tensors of one operator are on several devices");
}

Tensor dense(const Tensor& tensor) { return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor); }

Tensor empty(const Tensor& like, std::initializer_list<int64_t> shape) { return torch::stable::new_empty(like, shape); }

Tensor empty_index(const Tensor& like, std::initializer_list<int64_t> shape) {
  return torch::stable::new_empty(like, shape, ScalarType::Long);
}

template <class T>
const T* in(const Tensor& tensor) {
  return tensor.const_data_ptr<T>();
}

template <class T>
T* out(const Tensor& tensor) {
  return tensor.mutable_data_ptr<T>();
}

// Call f(T()) with the type of `tensor`, unless there is nothing to compute.
template <class F>
void dispatch(const Tensor& tensor, int64_t work, const F& f) {
  const ScalarType type = tensor.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double, "only float32 and float64 are computed");
  if (work == 0) return;
  if (type == ScalarType::Float)
    f(float());
  else
    f(double());
}

Tensor furthest_point_sample(Tensor xyz, int64_t npoint, bool skip_origin) {
  const Scope scope(xyz);
  xyz = dense(xyz);
  Tensor picked = empty_index(xyz, {xyz.size(0), npoint});
  dispatch(xyz, picked.numel(), [&](auto t) {
    using T = decltype(t);
    act::furthest_point_sample<T>(scope.run, in<T>(xyz), out<int64_t>(picked), xyz.size(0), xyz.size(1), npoint,
                                  skip_origin);
  });
  return picked;
}

std::tuple<Tensor, Tensor> knn(Tensor ref, Tensor query, int64_t k) {
  check_device(ref, query);
  const Scope scope(ref);
  ref = dense(ref), query = dense(query);
  Tensor distance = empty(query, {query.size(0), query.size(1), k});
  Tensor index = empty_index(query, {query.size(0), query.size(1), k});
  dispatch(ref, index.numel(), [&](auto t) {
    using T = decltype(t);
    act::knn<T>(scope.run, in<T>(ref), in<T>(query), out<T>(distance), out<int64_t>(index), ref.size(0), ref.size(1),
                query.size(1), ref.size(2), k);
  });
  return {distance, index};
}

std::tuple<Tensor, Tensor> three_nn(Tensor unknown, Tensor known) { return knn(known, unknown, 3); }

std::tuple<Tensor, Tensor, Tensor, Tensor> chamfer(Tensor xyz1, Tensor xyz2) {
  check_device(xyz1, xyz2);
  const Scope scope(xyz1);
  xyz1 = dense(xyz1), xyz2 = dense(xyz2);
  const int64_t batch = xyz1.size(0), points1 = xyz1.size(1), points2 = xyz2.size(1);
  Tensor dist1 = empty(xyz1, {batch, points1}), dist2 = empty(xyz2, {batch, points2});
  Tensor idx1 = empty_index(xyz1, {batch, points1}), idx2 = empty_index(xyz2, {batch, points2});
  dispatch(xyz1, batch, [&](auto t) {
    using T = decltype(t);
    act::chamfer<T>(scope.run, in<T>(xyz1), in<T>(xyz2), out<T>(dist1), out<T>(dist2), out<int64_t>(idx1),
                    out<int64_t>(idx2), batch, points1, points2);
  });
  return {dist1, dist2, idx1, idx2};
}

std::tuple<Tensor, Tensor> chamfer_backward(Tensor grad1, Tensor grad2, Tensor xyz1, Tensor xyz2, Tensor idx1,
                                            Tensor idx2) {
  check_device(xyz1, xyz2, grad1, grad2, idx1, idx2);
  const Scope scope(xyz1);
  grad1 = dense(grad1), grad2 = dense(grad2), xyz1 = dense(xyz1), xyz2 = dense(xyz2);
  idx1 = dense(idx1), idx2 = dense(idx2);
  const int64_t batch = xyz1.size(0), points1 = xyz1.size(1), points2 = xyz2.size(1);
  check_index(idx1, points2), check_index(idx2, points1);
  Tensor out1 = empty(xyz1, {batch, points1, 3}), out2 = empty(xyz2, {batch, points2, 3});
  dispatch(xyz1, batch, [&](auto t) {
    using T = decltype(t);
    act::chamfer_backward<T>(scope.run, in<T>(grad1), in<T>(grad2), in<T>(xyz1), in<T>(xyz2), in<int64_t>(idx1),
                             in<int64_t>(idx2), out<T>(out1), out<T>(out2), batch, points1, points2);
  });
  return {out1, out2};
}

// Gather columns (B, C, N) by idx (B, queries), however many axes the queries have, into `result`.
void gather_into(Tensor features, Tensor idx, const Tensor& result, int64_t queries) {
  check_device(features, idx);
  const Scope scope(features);
  features = dense(features), idx = dense(idx);
  check_index(idx, features.size(2));
  dispatch(features, result.numel(), [&](auto t) {
    using T = decltype(t);
    act::gather_points<T>(scope.run, in<T>(features), in<int64_t>(idx), out<T>(result), features.size(0),
                          features.size(1), features.size(2), queries);
  });
}

Tensor gather_points(Tensor features, Tensor idx) {
  Tensor result = empty(features, {features.size(0), features.size(1), idx.size(1)});
  gather_into(features, idx, result, idx.size(1));
  return result;
}

Tensor group_points(Tensor features, Tensor idx) {
  Tensor result = empty(features, {features.size(0), features.size(1), idx.size(1), idx.size(2)});
  gather_into(features, idx, result, idx.size(1) * idx.size(2));
  return result;
}

Tensor scatter(Tensor grad, Tensor idx, int64_t points, int64_t queries) {
  check_device(grad, idx);
  const Scope scope(grad);
  grad = dense(grad), idx = dense(idx);
  check_index(idx, points);
  Tensor result = empty(grad, {grad.size(0), grad.size(1), points});
  dispatch(grad, result.numel(), [&](auto t) {
    using T = decltype(t);
    act::gather_points_backward<T>(scope.run, in<T>(grad), in<int64_t>(idx), out<T>(result), grad.size(0),
                                   grad.size(1), points, queries);
  });
  return result;
}

Tensor gather_points_backward(Tensor grad, Tensor idx, int64_t n) { return scatter(grad, idx, n, idx.size(1)); }

Tensor group_points_backward(Tensor grad, Tensor idx, int64_t n) {
  return scatter(grad, idx, n, idx.size(1) * idx.size(2));
}

Tensor ball_query(Tensor xyz, Tensor new_xyz, double radius, int64_t nsample) {
  check_device(xyz, new_xyz);
  const Scope scope(xyz);
  xyz = dense(xyz), new_xyz = dense(new_xyz);
  Tensor index = empty_index(xyz, {new_xyz.size(0), new_xyz.size(1), nsample});
  dispatch(xyz, index.numel(), [&](auto t) {
    using T = decltype(t);
    act::ball_query<T>(scope.run, in<T>(xyz), in<T>(new_xyz), out<int64_t>(index), xyz.size(0), xyz.size(1),
                       new_xyz.size(1), radius, nsample);
  });
  return index;
}

Tensor three_interpolate(Tensor features, Tensor idx, Tensor weight) {
  check_device(features, idx, weight);
  const Scope scope(features);
  features = dense(features), idx = dense(idx), weight = dense(weight);
  check_index(idx, features.size(2));
  Tensor result = empty(features, {features.size(0), features.size(1), idx.size(1)});
  dispatch(features, result.numel(), [&](auto t) {
    using T = decltype(t);
    act::three_interpolate<T>(scope.run, in<T>(features), in<int64_t>(idx), in<T>(weight), out<T>(result),
                              features.size(0), features.size(1), features.size(2), idx.size(1));
  });
  return result;
}

std::tuple<Tensor, Tensor> three_interpolate_backward(Tensor grad, Tensor features, Tensor idx, Tensor weight) {
  check_device(features, grad, idx, weight);
  const Scope scope(features);
  grad = dense(grad), features = dense(features), idx = dense(idx), weight = dense(weight);
  check_index(idx, features.size(2));
  Tensor by_features = empty(features, {features.size(0), features.size(1), features.size(2)});
  Tensor by_weight = empty(weight, {weight.size(0), weight.size(1), 3});
  dispatch(features, features.size(0), [&](auto t) {
    using T = decltype(t);
    act::three_interpolate_backward<T>(scope.run, in<T>(grad), in<T>(features), in<int64_t>(idx), in<T>(weight),
                                       out<T>(by_features), out<T>(by_weight), features.size(0), features.size(1),
                                       features.size(2), idx.size(1));
  });
  return {by_features, by_weight};
}

#ifndef ACT_CUDA  // on a GPU torch's own layers, which extensions/ops.py takes there, cost little

std::tuple<Tensor, Tensor> max_points(Tensor x) {
  const Scope scope(x);
  x = dense(x);
  const int64_t patches = x.size(0), group = x.size(1), channels = x.size(2);
  Tensor value = empty(x, {patches, channels}), index = empty_index(x, {patches, channels});
  dispatch(x, value.numel(), [&](auto t) {
    using T = decltype(t);
    act::max_points<T>(scope.run, in<T>(x), out<T>(value), out<int64_t>(index), patches, group, channels);
  });
  return {value, index};
}

std::tuple<Tensor, Tensor> linear_max_backward(Tensor grad, Tensor idx, Tensor x, Tensor weight) {
  const Scope scope(x);
  grad = dense(grad), idx = dense(idx), x = dense(x), weight = dense(weight);
  const int64_t patches = x.size(0), group = x.size(1), width = x.size(2), channels = weight.size(0);
  check_index(idx, group);
  Tensor by_x = empty(x, {patches, group, width}), by_weight = empty(weight, {channels, width});
  dispatch(x, channels * width, [&](auto t) {
    using T = decltype(t);
    act::linear_max_backward<T>(scope.run, in<T>(grad), in<int64_t>(idx), in<T>(x), in<T>(weight), out<T>(by_x),
                                out<T>(by_weight), patches, group, channels, width);
  });
  return {by_x, by_weight};
}

using Optional = std::optional<Tensor>;

std::tuple<Tensor, Tensor, Tensor> norm_relu(Tensor x, Optional offset, Tensor weight, Tensor bias, double eps) {
  const Scope scope(x);
  x = dense(x), weight = dense(weight), bias = dense(bias);
  if (offset) offset = dense(*offset);
  const int64_t patches = x.size(0), group = x.size(1), channels = x.size(2);
  Tensor y = empty(x, {patches, group, channels}), mean = empty(x, {channels}), variance = empty(x, {channels});
  dispatch(x, channels, [&](auto t) {
    using T = decltype(t);
    act::norm_relu<T>(scope.run, in<T>(x), offset ? in<T>(*offset) : nullptr, in<T>(weight), in<T>(bias), eps,
                      out<T>(y), out<T>(mean), out<T>(variance), patches, group, channels);
  });
  return {y, mean, variance};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> norm_relu_backward(Tensor grad, Tensor x, Optional offset, Tensor weight,
                                                              Tensor bias, Tensor mean, Tensor variance, double eps) {
  const Scope scope(x);
  grad = dense(grad), x = dense(x), weight = dense(weight), bias = dense(bias);
  mean = dense(mean), variance = dense(variance);
  if (offset) offset = dense(*offset);
  const int64_t patches = x.size(0), group = x.size(1), channels = x.size(2);
  Tensor by_x = empty(x, {patches, group, channels}), by_offset = empty(x, {offset ? patches : 0, channels});
  Tensor by_weight = empty(x, {channels}), by_bias = empty(x, {channels});
  dispatch(x, channels, [&](auto t) {
    using T = decltype(t);
    act::norm_relu_backward<T>(scope.run, in<T>(grad), in<T>(x), offset ? in<T>(*offset) : nullptr, in<T>(weight),
                               in<T>(bias), in<T>(mean), in<T>(variance), eps, out<T>(by_x), out<T>(by_offset),
                               out<T>(by_weight), out<T>(by_bias), patches, group, channels);
  });
  return {by_x, by_offset, by_weight, by_bias};
}

#endif

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(act_ops, ACT_KEY, m) {
  m.impl("furthest_point_sample", TORCH_BOX(&furthest_point_sample));
  m.impl("knn", TORCH_BOX(&knn));
  m.impl("chamfer", TORCH_BOX(&chamfer));
  m.impl("chamfer_backward", TORCH_BOX(&chamfer_backward));
  m.impl("gather_points", TORCH_BOX(&gather_points));
  m.impl("gather_points_backward", TORCH_BOX(&gather_points_backward));
  m.impl("group_points", TORCH_BOX(&group_points));
  m.impl("group_points_backward", TORCH_BOX(&group_points_backward));
  m.impl("ball_query", TORCH_BOX(&ball_query));
  m.impl("three_nn", TORCH_BOX(&three_nn));
  m.impl("three_interpolate", TORCH_BOX(&three_interpolate));
  m.impl("three_interpolate_backward", TORCH_BOX(&three_interpolate_backward));
#ifndef ACT_CUDA
  m.impl("max_points", TORCH_BOX(&max_points));
  m.impl("linear_max_backward", TORCH_BOX(&linear_max_backward));
  m.impl("norm_relu", TORCH_BOX(&norm_relu));
  m.impl("norm_relu_backward", TORCH_BOX(&norm_relu_backward));
#endif
}
