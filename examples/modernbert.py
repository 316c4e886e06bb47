"""ModernBERT on the window op: the same numbers as its own attention, and how long a training step takes with each.

python examples/modernbert.py [TOKENS]          # a small model with random weights
"""

import copy
import sys
import time

import torch
from transformers import ModernBertConfig, ModernBertForMaskedLM
from vtsum_kernels.integrations.transformers import register


def step(model, tokens):
    model.zero_grad()
    loss = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=tokens).loss
    loss.backward()
    return loss.item(), torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def main(count):
    register()
    torch.manual_seed(0)
    sizes = {"vocab_size": 1000, "hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 6}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    config = ModernBertConfig(**sizes, **ids, num_attention_heads=4, local_attention=128, max_position_embeddings=count)
    models = {"eager": ModernBertForMaskedLM._from_config(config, attn_implementation="eager")}
    models["vtsum"] = copy.deepcopy(models["eager"])
    models["vtsum"].set_attn_implementation("vtsum_sliding_window")
    tokens = torch.randint(10, 1000, (1, count))
    found = {}
    for name, model in models.items():
        step(model, tokens)  # the first one allocates
        began = time.perf_counter()
        found[name] = step(model, tokens)
        print(f"{name}: loss {found[name][0]:.6f}, {time.perf_counter() - began:.2f} s a step of {count} tokens")
    apart = (found["eager"][1] - found["vtsum"][1]).norm() / found["eager"][1].norm()
    print(f"gradients differ by {apart:.1e} of their length")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2048)
