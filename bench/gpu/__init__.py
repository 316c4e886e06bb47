"""The parts of the GPU check: build, tests, kernels and model. ``python -m bench.gpu.check`` runs them."""
