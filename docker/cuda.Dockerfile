# Not built or run by the project yet.
#
#     docker build -f docker/cuda.Dockerfile -t vtsum-cuda .
#     docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" vtsum-cuda summarize talk.mp4

# CUDA 13.0, as the torch that constraints.txt names is built with; nvcc is in the devel image alone.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS build
ENV PIP_NO_CACHE_DIR=1 PATH=/opt/vtsum/bin:$PATH
RUN apt-get update && apt-get install -y --no-install-recommends g++ python3-dev python3-venv && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/vtsum
WORKDIR /source
COPY constraints.txt ./
RUN pip install -c constraints.txt torch setuptools wheel ninja
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY csrc csrc
COPY kernels kernels
COPY vtsum vtsum
RUN VTSUM_BUILD_CPP=1 VTSUM_BUILD_CUDA=1 pip wheel --no-deps --no-build-isolation -w /wheels .
RUN pip install -c constraints.txt "$(echo /wheels/*.whl)[video,speech,ocr,exports]"

# torch brings the libraries of CUDA; Triton compiles its launchers with a C compiler.
FROM ubuntu:24.04
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/vtsum /opt/vtsum
ENV PATH=/opt/vtsum/bin:$PATH HOME=/tmp NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /work
USER nobody
ENTRYPOINT ["vtsum"]
