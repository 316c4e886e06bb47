// What a failed launch says of itself.
#include <string>
#include <utility>

#include "device.h"

extern "C" const char *vts_cuda_error_text(int error) {
    static thread_local std::string text;
    const char *const kernel = std::exchange(vts::failed_kernel, nullptr);
    if (kernel == nullptr) {
        text = "a CUDA call failed: ";
    } else {
        const std::string name(kernel);  // as the launch has it: perhaps in parentheses, and with template arguments
        const size_t first = name.find_first_not_of('(');
        text = "the launch of " + name.substr(first, name.find_first_of("<)", first) - first) + " failed: ";
    }
    const cudaError_t one = static_cast<cudaError_t>(error);
    return (text += std::string(cudaGetErrorString(one)) + " (" + cudaGetErrorName(one) + ")").c_str();
}
