// What memory kernels may access, in which order, and how often they do: the hooks of -fsanitize=thread and of
// -fsanitize=bounds,signed-integer-overflow, which compiled kernels call at each access and each overflow.
//
// An access is right where it lies in a tensor that the operator was given, in shared memory or on the thread's stack.
// Two accesses of one word, one of them a write, need __syncthreads between them, or __syncwarp if they are of one warp;
// blocks are never ordered. Shuffles order no memory. A word is four bytes.
#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include "emulator.h"

namespace emulator {
namespace {

constexpr int NONE = -1, SEVERAL = -2;
constexpr int WORD = 4, SECTOR = 32, BANKS = 32, WARP = 32;

struct Word {
  Moment write, read;
  int read_warp;
  int launch = NONE;  // the write and the read are of another one and forgotten
  bool atomic;
};

struct Region {
  uintptr_t begin, end;
  bool shared, writable;
  std::vector<Word> words;
  std::vector<char> initialised;  // a word each

  Region(void* data, size_t bytes, bool shared, bool writable, bool initialised)
      : begin(reinterpret_cast<uintptr_t>(data)), end(begin + bytes), shared(shared), writable(writable),
        words((bytes + WORD - 1) / WORD), initialised(words.size(), initialised) {}
  bool holds(uintptr_t at, size_t size) const { return at >= begin && at + size <= end; }
  std::string name() const { return shared ? "shared memory" : "global memory"; }
};

std::vector<std::unique_ptr<Region>> regions;
int launches;

Region* find(uintptr_t at, size_t size) {
  static size_t last;
  if (last < regions.size() && regions[last]->holds(at, size)) return regions[last].get();
  for (last = 0; last < regions.size(); ++last)
    if (regions[last]->holds(at, size)) return regions[last].get();
  return nullptr;
}

bool ordered(const Moment& earlier, int earlier_warp, const Moment& later) {
  if (earlier.block == NONE || earlier.thread == later.thread) return earlier.block == NONE || earlier.block == later.block;
  if (earlier.block != later.block) return false;
  return earlier.barriers < later.barriers ||
         (earlier_warp == later.thread / WARP && earlier.warp_syncs < later.warp_syncs);
}

// What the accesses of a warp's lanes between two meetings amount to, lane by lane: the n-th execution of one
// instruction is one access of the warp.
struct Group {
  bool shared, write;
  size_t bytes = 0;
  std::vector<uintptr_t> words;
};
struct Lanes {
  std::array<std::unordered_map<const void*, int>, WARP> executions;
  std::map<std::pair<const void*, int>, Group> groups;
};

struct Counts {
  int64_t launches = 0, blocks = 0, threads = 0, barriers = 0;
  std::array<int64_t, 5> operations{};  // of warps
  int64_t loads = 0, load_bytes = 0, load_sectors = 0, stores = 0, store_bytes = 0, store_sectors = 0, atomics = 0;
  int64_t shared_accesses = 0, shared_wavefronts = 0;
};

bool counting;
std::map<const void*, Counts> counts_of;  // kernel → counts
Counts* counted;
std::vector<Lanes> lanes_of;              // the block's warps

void record(const Region& region, uintptr_t at, size_t size, bool write, const void* caller) {
  Lanes& lanes = lanes_of[warp_of_block()];
  Group& group = lanes.groups[{caller, lanes.executions[lane()][caller]++}];
  group.shared = region.shared, group.write = write, group.bytes += size;
  for (uintptr_t word = at / WORD; word * WORD < at + size; ++word) group.words.push_back(word);
}

size_t distinct(std::vector<uintptr_t> values) {
  std::sort(values.begin(), values.end());
  return std::unique(values.begin(), values.end()) - values.begin();
}

// The passes that the banks need: as many as there are different words in one.
size_t wavefronts(const Group& group) {
  std::array<std::set<uintptr_t>, BANKS> banks;
  for (const uintptr_t word : group.words) banks[word % BANKS].insert(word);
  size_t most = 0;
  for (const auto& bank : banks) most = std::max(most, bank.size());
  return most;
}

void add(const Group& group) {
  if (group.shared) {
    ++counted->shared_accesses, counted->shared_wavefronts += wavefronts(group);
    return;
  }
  std::vector<uintptr_t> sectors;
  for (const uintptr_t word : group.words) sectors.push_back(word * WORD / SECTOR);
  (group.write ? counted->stores : counted->loads) += 1;
  (group.write ? counted->store_bytes : counted->load_bytes) += group.bytes;
  (group.write ? counted->store_sectors : counted->load_sectors) += distinct(sectors);
}

void touch(void* p, size_t size, bool write, bool atomic, const void* caller) {
  if (!in_kernel() || on_a_stack(p)) return;
  const char *here = static_cast<const char*>(p), *built_in = reinterpret_cast<const char*>(&place);
  if (here >= built_in && here < built_in + sizeof place) return;
  const auto at = reinterpret_cast<uintptr_t>(p);
  Region* region = find(at, size);
  const std::string verb = write ? "a write" : "a read";
  if (!region) trap(verb + " outside of all tensors and shared arrays", caller);
  if (write && !region->writable) trap("a write to an input", caller);
  const Moment moment = now();
  const size_t first = (at - region->begin) / WORD, end = (at - region->begin + size + WORD - 1) / WORD;
  // the first word stands for all: a struct that is copied may have padding, which nobody writes
  if ((!write || atomic) && !region->initialised[first]) trap("uninitialised " + region->name() + " is read", caller);
  for (size_t i = first; i < end; ++i) {
    Word& word = region->words[i];
    if (word.launch != launches) {
      word = {{NONE, NONE, 0, 0}, {NONE, NONE, 0, 0}, NONE, launches, false};
    }
    if (!(atomic && word.atomic) && !ordered(word.write, word.write.thread / WARP, moment))
      trap("a race in " + region->name() + " with a write of thread " + std::to_string(word.write.thread), caller);
    if (write && !ordered(word.read, word.read_warp, moment))
      trap("a race in " + region->name() + " with a read", caller);
    if (write) {
      word.write = moment, word.atomic = atomic, region->initialised[i] = true;
    } else if (ordered(word.read, word.read_warp, moment)) {
      word.read = moment, word.read_warp = moment.thread / WARP;
    } else {
      if (word.read.block != moment.block) word.read.block = SEVERAL;
      if (word.read_warp != moment.thread / WARP) word.read_warp = SEVERAL;
      word.read.thread = SEVERAL;
    }
  }
  if (counting && !atomic) record(*region, at, size, write, caller);
  if (counting && atomic) ++counted->atomics;
}

}  // namespace

void begin_operator() { regions.clear(); }

void allow(void* data, size_t bytes, bool writable) {
  if (!bytes) return;
  const auto at = reinterpret_cast<uintptr_t>(data);
  for (const auto& region : regions)
    if (region->begin == at && region->end == at + bytes && region->writable == writable) return;
  if (writable) std::memset(data, 0xcd, bytes);
  regions.emplace_back(new Region(data, bytes, false, writable, !writable));
}

void begin_launch(const void* kernel, const dim3& grid, const dim3& block) {
  ++launches;
  counted = &counts_of[kernel];
  ++counted->launches;
  counted->blocks += static_cast<int64_t>(grid.x) * grid.y * grid.z;
  counted->threads += static_cast<int64_t>(grid.x) * grid.y * grid.z * block.x * block.y * block.z;
  lanes_of.assign((block.x * block.y * block.z + WARP - 1) / WARP, Lanes());
}

void begin_block() {
  std::erase_if(regions, [](const auto& region) { return region->shared; });
}

void add_shared_array(void* data, size_t bytes) { regions.emplace_back(new Region(data, bytes, true, true, false)); }

void count(Operation operation) { ++counted->operations[static_cast<int>(operation)]; }
void count_barrier() { ++counted->barriers; }

void warp_passes(int warp) {
  if (!counting) return;
  for (const auto& [_, group] : lanes_of[warp].groups) add(group);
  lanes_of[warp] = Lanes();
}

void atomic(void* p, size_t bytes, void* caller) { touch(p, bytes, true, true, caller); }

void set_counting(bool on) { counting = on; }
void clear_counts() { counts_of.clear(); }

std::string counts() {
  std::string text = "{";
  for (const auto& [kernel, c] : counts_of) {
    const auto number = [&](const char* name, int64_t value) { text += "\"" + std::string(name) + "\": " + std::to_string(value) + ", "; };
    text += (text.size() > 1 ? ", \"" : "\"") + std::to_string(reinterpret_cast<uintptr_t>(kernel)) + "\": {";
    number("launches", c.launches), number("blocks", c.blocks), number("threads", c.threads);
    number("barriers", c.barriers), number("shuffles", c.operations[0]), number("ballots", c.operations[1]);
    number("reductions", c.operations[2] + c.operations[3]), number("warp_syncs", c.operations[4]);
    number("loads", c.loads), number("load_bytes", c.load_bytes), number("load_sectors", c.load_sectors);
    number("stores", c.stores), number("store_bytes", c.store_bytes), number("store_sectors", c.store_sectors);
    number("shared_accesses", c.shared_accesses), number("shared_wavefronts", c.shared_wavefronts);
    text += "\"atomics\": " + std::to_string(c.atomics) + "}";
  }
  return text + "}";
}

}  // namespace emulator

extern "C" {

#define HOOK(name, size, write) \
  void name(void* p) { emulator::touch(p, size, write, false, __builtin_return_address(0)); }
#define HOOKS(size)                              \
  HOOK(__tsan_read##size, size, false)           \
  HOOK(__tsan_write##size, size, true)           \
  HOOK(__tsan_unaligned_read##size, size, false) \
  HOOK(__tsan_unaligned_write##size, size, true)
HOOKS(1) HOOKS(2) HOOKS(4) HOOKS(8) HOOKS(16)
void __tsan_read_range(void* p, size_t size) { emulator::touch(p, size, false, false, __builtin_return_address(0)); }
void __tsan_write_range(void* p, size_t size) { emulator::touch(p, size, true, false, __builtin_return_address(0)); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

struct Location {
  const char* file;
  uint32_t line, column;
};

static void undefined(const std::string& what, const Location* at) {
  const std::string file = at->file;
  const std::string place = file.substr(file.rfind('/') + 1) + ":" + std::to_string(at->line);
  if (!emulator::in_kernel()) throw std::runtime_error("emulated CUDA: " + what + ", " + place);
  emulator::trap(what, place);
}
void __ubsan_handle_out_of_bounds(Location* at, uintptr_t index) {
  undefined("index " + std::to_string(static_cast<intptr_t>(index)) + " outside of an array", at);
}
void __ubsan_handle_add_overflow(Location* at, uintptr_t, uintptr_t) { undefined("a sum overflows", at); }
void __ubsan_handle_sub_overflow(Location* at, uintptr_t, uintptr_t) { undefined("a difference overflows", at); }
void __ubsan_handle_mul_overflow(Location* at, uintptr_t, uintptr_t) { undefined("a product overflows", at); }
void __ubsan_handle_divrem_overflow(Location* at, uintptr_t, uintptr_t) { undefined("a quotient overflows", at); }
void __ubsan_handle_negate_overflow(Location* at, uintptr_t) { undefined("a negation overflows", at); }
}
