// Furthest point sampling: a block a cloud, its points in registers, one barrier a pick.
#include "common.cuh"

namespace act {
namespace {

constexpr double ORIGIN = 1e-3;  // squared norm up to which pointnet2_ops takes a point for padding
constexpr int MOST_THREADS = 1024;
constexpr int MOST_IN_REGISTERS = 16;  // points a thread
template <class T>
constexpr T NO_POINT = -2;  // below the distance of a point that is no candidate, -1

// The further of two, of equal ones that with the lower index.
template <class T>
__device__ Pair<T> further(const Pair<T>& a, const Pair<T>& b) {
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

template <class T>
__device__ Pair<T> furthest_in_warp(Pair<T> best) {
  for (int offset = WARP / 2; offset; offset /= 2)
    best = further(best, {__shfl_xor_sync(ALL, best.value, offset), __shfl_xor_sync(ALL, best.index, offset)});
  return best;
}

#if __CUDA_ARCH__ >= 800  // which has instructions for it
__device__ Pair<float> furthest_in_warp(Pair<float> best) {
  // floats from 0 on order as their bits do; whoever is no candidate is negative
  const unsigned key = best.value < 0 ? 0 : __float_as_uint(best.value) + 1;
  const unsigned most = __reduce_max_sync(ALL, key);
  const unsigned index = __reduce_min_sync(ALL, key == most ? static_cast<unsigned>(best.index) : 0x7fffffffu);
  return {most ? __uint_as_float(most - 1) : -1.0f, static_cast<int>(index)};
}
#endif

// The furthest of all threads, known to all. `parts` is one of two buffers used in turn, so one barrier will do.
template <class T>
__device__ Pair<T> furthest_in_block(Pair<T> best, Pair<T>* parts) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  best = furthest_in_warp(best);
  if (warps == 1) return best;
  if (lane == 0) parts[warp] = best;
  __syncthreads();
  return furthest_in_warp(lane < warps ? parts[lane] : parts[0]);
}

// Infinite for a candidate, below every distance for others.
template <class T>
__device__ T first_distance(const T* p, bool skip_origin) {
  const bool finite = (p[0] - p[0]) + (p[1] - p[1]) + (p[2] - p[2]) == 0;
  const bool skipped = !finite || (skip_origin && squared(p[0], p[1], p[2]) <= static_cast<T>(ORIGIN));
  return skipped ? T(-1) : infinite<T>();
}

// Thread t holds points t, t + threads, ...: their distance to the picked ones and, with KEEP, their coordinates.
template <class T, int POINTS, bool KEEP>
__global__ void __launch_bounds__(MOST_THREADS)
    sample(const T* clouds, int64_t* all_picked, int points, int64_t npoint, bool skip_origin) {
  __shared__ Pair<T> parts[2][WARP];
  const T* xyz = clouds + static_cast<int64_t>(blockIdx.x) * points * 3;
  int64_t* picked = all_picked + blockIdx.x * npoint;
  T nearest[POINTS], x[POINTS], y[POINTS], z[POINTS];
#pragma unroll
  for (int i = 0; i < POINTS; ++i) {
    const int at = threadIdx.x + i * blockDim.x;
    const T* p = xyz + 3 * min(at, points - 1);
    nearest[i] = at < points ? first_distance(p, skip_origin) : NO_POINT<T>;
    if (KEEP) x[i] = p[0], y[i] = p[1], z[i] = p[2];
  }
  int last = 0;
  if (threadIdx.x == 0) picked[0] = 0;
  for (int64_t step = 1; step < npoint; ++step) {
    const T px = xyz[3 * last], py = xyz[3 * last + 1], pz = xyz[3 * last + 2];
    Pair<T> best{NO_POINT<T>, points - 1};
#pragma unroll
    for (int i = 0; i < POINTS; ++i) {
      const int at = threadIdx.x + i * blockDim.x;
      if (!KEEP && at >= points) continue;
      const T* p = xyz + 3 * at;
      const T distance = KEEP ? squared(x[i] - px, y[i] - py, z[i] - pz) : squared(p[0] - px, p[1] - py, p[2] - pz);
      nearest[i] = fmin(nearest[i], distance);               // not what is not a number
      if (nearest[i] > best.value) best = {nearest[i], at};  // indices ascend, so the first of equal ones stays
    }
    last = furthest_in_block(best, parts[step % 2]).index;
    if (threadIdx.x == 0) picked[step] = last;
  }
}

// The same for clouds of any size, the distances in global memory.
template <class T>
__global__ void __launch_bounds__(MOST_THREADS)
    sample_large(const T* clouds, T* all_nearest, int64_t* all_picked, int points, int64_t npoint, bool skip_origin) {
  __shared__ Pair<T> parts[2][WARP];
  const T* xyz = clouds + static_cast<int64_t>(blockIdx.x) * points * 3;
  T* nearest = all_nearest + static_cast<int64_t>(blockIdx.x) * points;
  int64_t* picked = all_picked + blockIdx.x * npoint;
  for (int at = threadIdx.x; at < points; at += blockDim.x)
    nearest[at] = first_distance(xyz + 3ll * at, skip_origin);
  int last = 0;
  if (threadIdx.x == 0) picked[0] = 0;
  for (int64_t step = 1; step < npoint; ++step) {
    const T px = xyz[3ll * last], py = xyz[3ll * last + 1], pz = xyz[3ll * last + 2];
    Pair<T> best{NO_POINT<T>, points - 1};
    for (int at = threadIdx.x; at < points; at += blockDim.x) {
      const T* p = xyz + 3ll * at;
      const T distance = squared(p[0] - px, p[1] - py, p[2] - pz), known = nearest[at];
      if (distance < known) nearest[at] = distance;
      const T least = fmin(known, distance);
      if (least > best.value) best = {least, at};
    }
    last = furthest_in_block(best, parts[step % 2]).index;
    if (threadIdx.x == 0) picked[step] = last;
  }
}

int threads_for(int64_t points) {
  int threads = 64;
  while (threads < MOST_THREADS && 4 * threads < points) threads *= 2;  // about four points a thread
  return threads;
}

}  // namespace

template <class T>
void furthest_point_sample(const Executor& run, const T* xyz, int64_t* picked, int64_t batch, int64_t points,
                           int64_t npoint, bool skip_origin) {
  const char* operation = "furthest_point_sample";
  const int count = as_int(points, operation), threads = threads_for(points);
  const int each = (count + threads - 1) / threads;
  const unsigned blocks = blocks_for(batch, 1);
  if (each > MOST_IN_REGISTERS)
    return launch(run, operation, sample_large<T>, blocks, threads, xyz, run.scratch<T>(batch * points), picked, count,
                  npoint, skip_origin);
  const auto kernel = each <= 1   ? sample<T, 1, true>
                      : each <= 2 ? sample<T, 2, true>
                      : each <= 4 ? sample<T, 4, true>
                      : each <= 8 ? sample<T, 8, sizeof(T) == 4>
                                  : sample<T, MOST_IN_REGISTERS, false>;
  launch(run, operation, kernel, blocks, threads, xyz, picked, count, npoint, skip_origin);
}

template void furthest_point_sample(const Executor&, const float*, int64_t*, int64_t, int64_t, int64_t, bool);
template void furthest_point_sample(const Executor&, const double*, int64_t*, int64_t, int64_t, int64_t, bool);

}  // namespace act
