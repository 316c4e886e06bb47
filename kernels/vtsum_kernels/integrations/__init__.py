"""Adapters: the op under the calls that other libraries have made familiar.

    transformers   attn_implementation="vtsum_sliding_window" for models with sliding-window layers
    longformer     the local attention of transformers' Longformer and LED
    flash_attn     flash_attn_func, flash_attn_varlen_func, their packed forms, flash_attn_with_kvcache
    natten         na1d
    sdpa           scaled_dot_product_attention, which knows a band when it sees one

Nothing is imported here: each module is imported by whoever wants it, and imports its library where it needs it.
"""
