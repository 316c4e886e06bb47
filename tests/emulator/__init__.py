"""The CUDA C++ kernels on a CPU: each thread of a block a fiber, checked against an oracle and by the sanitizers."""
