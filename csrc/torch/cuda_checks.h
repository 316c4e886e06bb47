// What the glue of every CUDA op checks: where tensors are, and what became of a launch.
#pragma once

#include <torch/csrc/stable/device.h>

#include <initializer_list>
#include <string>

#include "common.h"

namespace vts::glue {

// Of what a CUDA entry point gave.
inline void check_launch(const char *op, int error) {
    STD_TORCH_CHECK(error == 0, op, ": ", vts_cuda_error_text(error));
}

// A tensor of a call by its name; it need not be given.
struct argument {
    const char *name;
    const Tensor *tensor;

    argument(const char *its_name, const Tensor &x) : name(its_name), tensor(&x) {}
    argument(const char *its_name, const std::optional<Tensor> &x)
        : name(its_name), tensor(x.has_value() ? &*x : nullptr) {}
};

inline std::string text_of(const torch::stable::Device &device) {
    if (device.type() == torch::headeronly::DeviceType::CPU) return "cpu";
    if (device.type() != torch::headeronly::DeviceType::CUDA) return "another kind of device";
    return "cuda:" + std::to_string(device.index());
}

// Every tensor of a call must be where its first one is. An op runs on CUDA as soon as one of its tensors is there, and
// on the CPU where all are: so it is CUDA's ops that must look.
inline void check_devices(const char *op, const argument &first, std::initializer_list<argument> others) {
    const auto device = first.tensor->device();
    for (const argument &x : others)
        STD_TORCH_CHECK(
            x.tensor == nullptr || x.tensor->device() == device, op, ": ", x.name, " must be on the device of ",
            first.name, ", ", text_of(device), ", got ", text_of(x.tensor->device()));
}

}  // namespace vts::glue
