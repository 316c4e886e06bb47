"""What the Triton kernels of all ops share: arithmetic, launching, and the choice of their sizes.

`tuning.py` needs no Triton; `arithmetic.py` and `launch.py` are imported by the ops' own Triton files alone.
"""
