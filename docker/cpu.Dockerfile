# Not built or run by the project yet.
#
#     docker build -f docker/cpu.Dockerfile -t vtsum .
#     docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD:/work" vtsum summarize talk.mp4

FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY constraints.txt ./
RUN pip install -c constraints.txt torch setuptools wheel ninja
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY csrc csrc
COPY kernels kernels
COPY vtsum vtsum
RUN VTSUM_BUILD_CPP=1 VTSUM_BUILD_CUDA=0 pip wheel --no-deps --no-build-isolation -w /wheels .

FROM python:3.11-slim-bookworm
ENV PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/
RUN pip install -c /wheels/constraints.txt "$(echo /wheels/*.whl)[video,speech,ocr,exports]" && rm -r /wheels
# The user of `docker run --user` has no home: caches that libraries insist on go where anyone may write.
ENV HOME=/tmp
WORKDIR /work
USER nobody
ENTRYPOINT ["vtsum"]
