"""Checkpoints that read pictures and text, or text alone, small enough to be made in a test: the real format, random
weights, a tokenizer made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

# A turn of each role between marks, pictures where they stand in it, as published templates have it.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}PICTURE{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FAMILIES = ("smolvlm", "qwen2_5_vl", "llava_onevision")


def make_tokenizer(extra: tuple[str, ...] = (), **named: str) -> Any:
    """Every byte is a token, "yes" and "no" are, and the marks of turns and of pictures."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("y", "e"), ("ye", "s"), ("n", "o"), ("Y", "e"), ("Ye", "s"), ("N", "o")]
    words = letters + ["".join(pair) for pair in merges]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|pad|>", *extra])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|pad|>", model_max_length=8192, **named
    )


def _text(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192,
        "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip


def make_image_text(folder: Path, family: str) -> Path:
    """Write a tiny checkpoint of one of FAMILIES."""
    from vtsum_kernels.integrations import torchvision_free

    torchvision_free.prepare()
    from transformers.utils import logging

    model, processor = {"smolvlm": _smolvlm, "qwen2_5_vl": _qwen, "llava_onevision": _llava}[family]()
    model.generation_config.eos_token_id = model.config.get_text_config().eos_token_id
    logging.disable_progress_bar()
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def make_instruct(folder: Path) -> Path:
    """Write a tiny Qwen2 that takes turns."""
    from vtsum_kernels.integrations import torchvision_free

    torchvision_free.prepare()
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(**_text(tokenizer))).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _smolvlm() -> tuple[Any, Any]:
    """SmolVLM's first generation, which is an Idefics 3; the second's processor wants a package that is not ours."""
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
    )

    marks = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    tokenizer = make_tokenizer(marks)
    torch.manual_seed(0)
    config = Idefics3Config(
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "image_size": 32, "patch_size": 8,
        },
        text_config={"model_type": "llama", **_text(tokenizer)},
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    size = {"longest_edge": 32}
    pictures = Idefics3ImageProcessor(size=size, max_image_size=size, do_image_splitting=False)
    processor = Idefics3Processor(
        pictures, tokenizer, image_seq_len=4, chat_template=TEMPLATE.replace("PICTURE", "<image>")
    )
    return Idefics3ForConditionalGeneration(config), processor


def _qwen() -> tuple[Any, Any]:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    marks = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = make_tokenizer(marks)
    torch.manual_seed(0)
    ids = tokenizer.convert_tokens_to_ids(list(marks))
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 32,
            "patch_size": 8, "spatial_merge_size": 2, "window_size": 32, "fullatt_block_indexes": [1],
        },
        text_config={
            **_text(tokenizer),
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
        },
        vision_start_token_id=ids[0], vision_end_token_id=ids[1], image_token_id=ids[2], video_token_id=ids[3],
    )  # fmt: skip
    size = {"patch_size": 8, "merge_size": 2, "min_pixels": 16 * 16, "max_pixels": 48 * 48}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**size), tokenizer, Qwen2VLVideoProcessor(**size),
        chat_template=TEMPLATE.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(config), processor


def _llava() -> tuple[Any, Any]:
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    tokenizer = make_tokenizer(("<image>", "<video>"))
    torch.manual_seed(0)
    config = LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "image_size": 32, "patch_size": 8, "vision_use_head": False,
        },
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[32, 32], [32, 64], [64, 32]],
        vision_feature_layer=-1,
    )  # fmt: skip
    size = {"height": 32, "width": 32}
    pictures = LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[32, 32], [32, 64], [64, 32]])
    processor = LlavaOnevisionProcessor(
        pictures, tokenizer, LlavaOnevisionVideoProcessor(size=size), num_image_tokens=16,
        vision_feature_select_strategy="full", chat_template=TEMPLATE.replace("PICTURE", "<image>"),
    )  # fmt: skip
    return LlavaOnevisionForConditionalGeneration(config), processor
