// What the parts of the emulator tell each other.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "cuda_runtime.h"

namespace emulator {

// Where the running thread stands: what it has passed so far orders its accesses with those of others.
struct Moment {
  int block, thread, barriers, warp_syncs;
};

// End the launch with this error; `caller`, an address in the code, is named by its offset in the library.
[[noreturn]] void trap(const std::string& what, const std::string& where);
[[noreturn]] void trap(const std::string& what, const void* caller);

bool in_kernel();                // false: on the host
Moment now();
bool on_a_stack(const void* p);  // of the running thread, or of whoever launched the kernel
int warp_of_block();             // number of the running thread's warp

// memory.cpp: who may access what, and how often it was
void begin_operator();                                        // forget the tensors of the last one
void allow(void* data, size_t bytes, bool writable);          // a tensor that kernels get a pointer to
void begin_launch(const void* kernel, const dim3& grid, const dim3& block);
void begin_block();
void add_shared_array(void* data, size_t bytes);
void count(Operation);                                        // of a whole warp
void count_barrier();                                         // of a whole block
void warp_passes(int warp);                                   // its lanes meet: accesses so far belong together
void set_counting(bool on);
void clear_counts();
std::string counts();                                         // of all launches since, as JSON

// The stream that torch says is the current one; kernels may use no other.
inline cudaStream_t const STREAM = reinterpret_cast<cudaStream_t>(0x5712ea40);

}  // namespace emulator
