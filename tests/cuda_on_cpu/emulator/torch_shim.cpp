// Functions of torch's C interface that register.cpp calls on CUDA, defined again for tensors of the CPU. Linked into the
// library with -Bsymbolic, they stand before torch's own.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>

#include "emulator.h"

namespace {

// Have kernels access exactly the elements of a contiguous tensor.
AOTITorchError allow(AtenTensorHandle tensor, void** data, bool writable) {
  int64_t count = 0;
  int32_t type = 0;
  if (aoti_torch_get_numel(tensor, &count) || aoti_torch_get_dtype(tensor, &type) || aoti_torch_get_data_ptr(tensor, data))
    return AOTI_TORCH_FAILURE;
  emulator::allow(*data, count * aoti_torch_dtype_element_size(type), writable);
  return AOTI_TORCH_SUCCESS;
}

}  // namespace

extern "C" {

AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = emulator::STREAM;
  return AOTI_TORCH_SUCCESS;
}

// An operator guards its device before anything else.
AOTITorchError aoti_torch_create_device_guard(int32_t, DeviceGuardHandle* guard) {
  emulator::begin_operator();
  *guard = nullptr;
  return AOTI_TORCH_SUCCESS;
}
AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle) { return AOTI_TORCH_SUCCESS; }

AOTITorchError torch_get_const_data_ptr(AtenTensorHandle tensor, const void** data) {
  return allow(tensor, const_cast<void**>(data), false);
}
AOTITorchError torch_get_mutable_data_ptr(AtenTensorHandle tensor, void** data) { return allow(tensor, data, true); }
}
