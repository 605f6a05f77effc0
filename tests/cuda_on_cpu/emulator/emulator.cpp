// The scheduler: blocks one after the other, the threads of a block as fibers, each until it has to wait.
#include "emulator.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

namespace emulator {

Place place;

namespace {

constexpr size_t STACK = 1 << 16;
constexpr size_t HOST_STACK = 8 << 20;
constexpr int WARP = 32;
constexpr int MOST_THREADS = 1024;
constexpr int64_t MOST_BLOCKS_X = 0x7fffffff, MOST_BLOCKS_YZ = 65535;
constexpr size_t MOST_SHARED = 48 << 10;

struct Fiber {
  std::unique_ptr<char[]> stack{new char[STACK]};
  ucontext_t start;
  jmp_buf jump;
  bool started = false;
  uint3 index;
  // what it waits at, with its warp:
  Site site;
  Operation operation;
  unsigned mask;
  uint64_t value;
  int from;
};

struct Warp {
  unsigned waiting = 0, ended = 0;  // lanes
  int syncs = 0;
};

struct Array {
  std::unique_ptr<char[]> data;
  size_t bytes;
};

std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Warp> warps;
std::map<int, Array> arrays;  // of the block's shared memory
std::deque<int> ready;        // threads
Fiber* self;                  // whoever runs; null: the host
Kernel kernel;
int threads, waiting, ended, barriers;  // waiting: at a barrier
Site barrier_site;
jmp_buf scheduler;
const char* host_stack;
int order;  // of threads and blocks: 0 first come first, 1 last come first, others random with that seed
std::mt19937 random_number;
cudaError_t last_error = cudaSuccess;
std::string message;

enum { WAITS = 1, FAILS = 2 };  // why a fiber returns to the scheduler

std::string where(const Site& site) {
  const std::string file = site.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line());
}

void yield() {
  if (!_setjmp(self->jump)) _longjmp(scheduler, WAITS);
}

// A fiber serves block after block.
void fiber_main() {
  for (;;) {
    kernel.run(kernel.call);
    ++ended;
    if (waiting) trap("a thread ends while others wait", where(barrier_site));
    const int lane = thread_number() % WARP, first = thread_number() - lane;
    warps[first / WARP].ended |= 1u << lane;
    for (unsigned others = warps[first / WARP].waiting; others; others &= others - 1)
      if (const Fiber& other = *fibers[first + __builtin_ctz(others)]; other.mask >> lane & 1)
        trap("a lane ends that others of its warp wait for", where(other.site));
    yield();
  }
}

void resume(int i) {
  self = fibers[i].get();
  place.thread = self->index;
  if (const int why = _setjmp(scheduler)) {
    if (why == FAILS) throw std::string(message);
    return;
  }
  if (self->started) _longjmp(self->jump, 1);
  self->started = true;
  getcontext(&self->start);
  self->start.uc_stack.ss_sp = self->stack.get();
  self->start.uc_stack.ss_size = STACK;
  makecontext(&self->start, fiber_main, 0);
  setcontext(&self->start);
}

int next() {
  if (order > 1) std::swap(ready[random_number() % ready.size()], ready.back());
  const int i = order ? ready.back() : ready.front();
  order ? ready.pop_back() : ready.pop_front();
  return i;
}

void run_block() {
  arrays.clear();
  warps.assign((threads + WARP - 1) / WARP, Warp());
  ready.clear();
  waiting = ended = barriers = 0;
  begin_block();
  const dim3& size = place.block_size;
  for (unsigned i = 0; i < static_cast<unsigned>(threads); ++i) {
    fibers[i]->index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    ready.push_back(static_cast<int>(i));
  }
  while (!ready.empty()) resume(next());
  for (size_t warp = 0; warp < warps.size(); ++warp) warp_passes(static_cast<int>(warp));
  if (ended == threads) return;
  std::string sites = waiting ? ", " + where(barrier_site) : "";
  for (size_t w = 0; w < warps.size(); ++w)
    if (warps[w].waiting) sites += ", " + where(fibers[WARP * w + __builtin_ctz(warps[w].waiting)]->site);
  throw "a deadlock: threads wait for ever" + sites;
}

// Run all blocks; return an error or nothing.
std::string run_blocks() {
  const dim3& grid = place.grid_size;
  std::vector<int64_t> blocks(static_cast<int64_t>(grid.x) * grid.y * grid.z);
  std::iota(blocks.begin(), blocks.end(), 0);
  if (order == 1) std::reverse(blocks.begin(), blocks.end());
  if (order > 1) std::shuffle(blocks.begin(), blocks.end(), random_number);
  while (static_cast<int>(fibers.size()) < threads) fibers.emplace_back(new Fiber);
  try {
    for (const int64_t b : blocks) {
      place.block = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                     static_cast<unsigned>(b / grid.x / grid.y)};
      run_block();
    }
    return "";
  } catch (const std::string& error) {
    for (auto& fiber : fibers) fiber->started = false;  // what they were doing is given up
    return error;
  }
}

cudaError_t fail(cudaError_t error, const std::string& text) {
  last_error = error, message = "emulated CUDA: " + text;
  return error;
}

}  // namespace

void trap(const std::string& what, const std::string& where) {
  const uint3& b = place.block;
  message = what + ", " + where + ", block (" + std::to_string(b.x) + ", " + std::to_string(b.y) + "), thread " +
            std::to_string(thread_number());
  _longjmp(scheduler, FAILS);
}

void trap(const std::string& what, const void* caller) {
  Dl_info info{};
  dladdr(caller, &info);
  char offset[32];
  std::snprintf(offset, sizeof offset, "at %#tx", static_cast<const char*>(caller) - 1 - static_cast<char*>(info.dli_fbase));
  trap(what, std::string(offset));
}

bool in_kernel() { return self; }

Moment now() {
  const uint3& b = place.block;
  return {static_cast<int>(b.x + place.grid_size.x * (b.y + place.grid_size.y * b.z)), thread_number(), barriers,
          warps[warp_of_block()].syncs};
}

bool on_a_stack(const void* p) {
  const char* at = static_cast<const char*>(p);
  const auto inside = [at](const char* begin, size_t size) { return at >= begin && at < begin + size; };
  return inside(self->stack.get(), STACK) || inside(host_stack, HOST_STACK);
}

int warp_of_block() { return thread_number() / WARP; }

void* shared_memory(int key, size_t bytes) {
  Array& array = arrays[key];
  if (!array.data) {
    array = {std::unique_ptr<char[]>(new char[bytes]), bytes};
    std::memset(array.data.get(), 0xcd, bytes);
    add_shared_array(array.data.get(), bytes);
    size_t total = 0;
    for (const auto& [_, other] : arrays) total += other.bytes;
    if (total > MOST_SHARED) trap("more shared memory than the 48 KB that need no attribute", __builtin_return_address(0));
  }
  return array.data.get();
}

void barrier(Site site) {
  if (ended) trap("__syncthreads after threads of the block have ended", where(site));
  if (waiting && barrier_site.line() != site.line())
    trap("threads meet at different __syncthreads, also " + where(barrier_site), where(site));
  barrier_site = site;
  if (++waiting < threads) return yield();
  waiting = 0, ++barriers;
  count_barrier();
  for (size_t warp = 0; warp < warps.size(); ++warp) warp_passes(static_cast<int>(warp));
  for (int i = 0; i < threads; ++i)
    if (i != thread_number()) ready.push_back(i);
}

uint64_t meet(Operation operation, unsigned mask, uint64_t value, int from, Site site) {
  const int lane = thread_number() % WARP, first = thread_number() - lane;
  Warp& warp = warps[first / WARP];
  self->operation = operation, self->mask = mask, self->value = value, self->from = from, self->site = site;
  const auto check = [&](const Fiber& other) {
    if (other.mask != mask || other.site.line() != site.line() || other.site.column() != site.column() ||
        other.operation != operation)
      trap("lanes meet at different operations, also " + where(other.site), where(site));
  };
  if (!(mask >> lane & 1)) trap("a lane is not in its own mask", where(site));
  if (mask & warp.ended) trap("the mask names lanes that have ended", where(site));
  if (first + WARP - 1 - __builtin_clz(mask) >= threads) trap("the mask names lanes that do not exist", where(site));
  if (warp.waiting & mask) check(*fibers[first + __builtin_ctz(warp.waiting & mask)]);
  warp.waiting |= 1u << lane;
  if (mask & ~warp.waiting) {
    yield();
    return self->value;
  }
  // the last to come computes the results for all
  uint64_t values[WARP], ballot = 0, most = 0, least = ~uint64_t{0};
  for (unsigned lanes = mask; lanes; lanes &= lanes - 1) {
    const int i = __builtin_ctz(lanes);
    check(*fibers[first + i]);
    values[i] = fibers[first + i]->value;
    ballot |= static_cast<uint64_t>(values[i] != 0) << i;
    most = std::max(most, values[i]), least = std::min(least, values[i]);
  }
  for (unsigned lanes = mask; lanes; lanes &= lanes - 1) {
    const int i = __builtin_ctz(lanes);
    Fiber& other = *fibers[first + i];
    if (operation == Operation::SHUFFLE) {
      if (!(mask >> other.from & 1)) trap("a lane reads another outside the mask", where(site));
      other.value = values[other.from];
    } else {
      other.value = operation == Operation::BALLOT ? ballot : operation == Operation::MAXIMUM ? most : least;
    }
    if (i != lane) ready.push_back(first + i);
  }
  warp.waiting &= ~mask;
  warp.syncs += operation == Operation::SYNC && mask == ~0u;
  count(operation);
  warp_passes(first / WARP);
  return self->value;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const Kernel& launched) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  const int64_t count = static_cast<int64_t>(block.x) * block.y * block.z;
  if (config.stream != STREAM) return fail(cudaErrorLaunchFailure, "not on torch's current stream");
  if (!count || count > MOST_THREADS || block.z > 64 || !grid.x || !grid.y || !grid.z || grid.x > MOST_BLOCKS_X ||
      grid.y > MOST_BLOCKS_YZ || grid.z > MOST_BLOCKS_YZ || config.dynamicSmemBytes > MOST_SHARED)
    return fail(cudaErrorInvalidConfiguration,
                "a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " + std::to_string(grid.z) +
                    " blocks of " + std::to_string(count) + " threads");
  random_number.seed(order);
  kernel = launched, threads = static_cast<int>(count), place.grid_size = grid, place.block_size = block;
  host_stack = static_cast<const char*>(__builtin_frame_address(0)) - 4096;
  begin_launch(launched.function, grid, block);
  const std::string error = run_blocks();
  self = nullptr;
  return error.empty() ? cudaSuccess : fail(cudaErrorLaunchFailure, error);
}

}  // namespace emulator

cudaError_t cudaGetLastError() { return std::exchange(emulator::last_error, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t) { return emulator::message.c_str(); }

// A kernel's assert ends the launch, as on a GPU.
extern "C" __attribute__((visibility("hidden"))) void __assert_fail(const char* what, const char* file, unsigned line,
                                                                    const char*) noexcept(true) {
  const std::string name = file;
  const std::string place = name.substr(name.rfind('/') + 1) + ":" + std::to_string(line);
  if (!emulator::in_kernel()) std::fprintf(stderr, "%s: %s\n", place.c_str(), what), std::abort();
  emulator::trap(std::string("assertion failed: ") + what, place);
}

// What the tests call, by ctypes.
extern "C" {
void emulator_set_order(int order) { emulator::order = order; }
void emulator_leave_error(int error) { emulator::last_error = static_cast<cudaError_t>(error); }  // of somebody else
int emulator_take_error() { return cudaGetLastError(); }
void emulator_count(int on) { emulator::set_counting(on), emulator::clear_counts(); }
const char* emulator_counts() {
  static std::string text;
  return (text = emulator::counts()).c_str();
}
}
