// Furthest point sampling: a block a cloud, its points in registers, one barrier a pick.
#include "common.cuh"

namespace act {
namespace {

constexpr double ORIGIN = 1e-3;  // squared norm up to which pointnet2_ops takes a point for padding
constexpr int MOST_THREADS = 1024;
constexpr int MOST_IN_REGISTERS = 16;  // points a thread

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

template <class T>
__device__ T first_distance(const T* p, bool skip_origin) {
  return skip_origin && squared(p[0], p[1], p[2]) <= static_cast<T>(ORIGIN) ? T(-1) : infinite<T>();
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
    nearest[i] = at < points ? first_distance(xyz + 3 * at, skip_origin) : T(-2);
    if (KEEP && at < points) x[i] = xyz[3 * at], y[i] = xyz[3 * at + 1], z[i] = xyz[3 * at + 2];
  }
  int last = 0;
  if (threadIdx.x == 0) picked[0] = 0;
  for (int64_t step = 1; step < npoint; ++step) {
    const T px = xyz[3 * last], py = xyz[3 * last + 1], pz = xyz[3 * last + 2];
    Pair<T> best{T(-3), points - 1};
#pragma unroll
    for (int i = 0; i < POINTS; ++i) {
      const int at = threadIdx.x + i * blockDim.x;
      if (at < points) {
        const T* p = xyz + 3 * at;
        const T distance = KEEP ? squared(x[i] - px, y[i] - py, z[i] - pz) : squared(p[0] - px, p[1] - py, p[2] - pz);
        nearest[i] = distance < nearest[i] ? distance : nearest[i];
        best = further(best, {nearest[i], at});
      }
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
    Pair<T> best{T(-3), points - 1};
    for (int at = threadIdx.x; at < points; at += blockDim.x) {
      const T* p = xyz + 3ll * at;
      const T distance = squared(p[0] - px, p[1] - py, p[2] - pz);
      if (distance < nearest[at]) nearest[at] = distance;
      best = further(best, {nearest[at], at});
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
  if (points > 0x7fffffff / 3) throw std::runtime_error("furthest_point_sample: a cloud is too large");
  const cudaStream_t stream = stream_of(run);
  const int threads = threads_for(points), count = static_cast<int>(points);
  const int each = static_cast<int>((points + threads - 1) / threads);
  const unsigned blocks = blocks_for(batch, 1);
  if (each <= 1)
    sample<T, 1, true><<<blocks, threads, 0, stream>>>(xyz, picked, count, npoint, skip_origin);
  else if (each <= 2)
    sample<T, 2, true><<<blocks, threads, 0, stream>>>(xyz, picked, count, npoint, skip_origin);
  else if (each <= 4)
    sample<T, 4, true><<<blocks, threads, 0, stream>>>(xyz, picked, count, npoint, skip_origin);
  else if (each <= 8)
    sample<T, 8, sizeof(T) == 4><<<blocks, threads, 0, stream>>>(xyz, picked, count, npoint, skip_origin);
  else if (each <= MOST_IN_REGISTERS)
    sample<T, MOST_IN_REGISTERS, false><<<blocks, threads, 0, stream>>>(xyz, picked, count, npoint, skip_origin);
  else {
    void* nearest = nullptr;
    check(cudaMallocAsync(&nearest, sizeof(T) * batch * points, stream), "furthest_point_sample");
    sample_large<T><<<blocks, threads, 0, stream>>>(xyz, static_cast<T*>(nearest), picked, count, npoint, skip_origin);
    const cudaError_t launched = cudaGetLastError();
    check(cudaFreeAsync(nearest, stream), "furthest_point_sample");
    check(launched, "furthest_point_sample");
  }
  check(cudaGetLastError(), "furthest_point_sample");
}

template void furthest_point_sample(const Executor&, const float*, int64_t*, int64_t, int64_t, int64_t, bool);
template void furthest_point_sample(const Executor&, const double*, int64_t*, int64_t, int64_t, int64_t, bool);

}  // namespace act
