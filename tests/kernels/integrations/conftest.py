"""transformers' model classes load beside a torchvision whose binary wants CUDA."""

from __future__ import annotations

from vtsum_kernels.integrations import torchvision_free

torchvision_free.prepare()
