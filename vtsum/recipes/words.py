"""The words of the embedded model: its vocabulary, and its text decoder's first training on sentences alone.

TVSum has captions for 50 videos, far too few to learn English from. So the decoder first learns to write sentences of
ActivityNet Captions without seeing anything (its cross attention reads one frame of zeros), and only then, in
`vtsum.recipes.joint`, to let the frames choose among them.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable

import torch

from vtsum.model.text_decoder import TextDecoder

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")


def clean(sentence: str) -> str | None:
    """One plain lowercase sentence that ends in a full stop; None for what is none (too short, too long, odd signs)."""
    s = re.sub(r"\s+", " ", sentence.replace("’", "'").strip()).lower().rstrip(".!?, ")
    if not re.fullmatch(r"[a-z0-9 ,;'\"()&%$/:-]+", s) or not 4 <= len(s.split()) <= 24:
        return None
    return s + "."


def vocabulary(sentences: Iterable[str], size: int) -> str:
    """Train WordPiece on `sentences`: the word list, one a line, `SPECIAL` first."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return "".join(word + "\n" for word, _ in words)


def learn_words(
    decoder: TextDecoder,
    sentences: list[str],
    unseen: list[str],
    *,
    epochs: int,
    width: int,
    batch: int = 128,
    lr: float = 1.5e-3,
    seed: int = 0,
) -> float:
    """Train `decoder` as a language model; returns the held-out sentences' perplexity a token."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr, weight_decay=0.01, betas=(0.9, 0.98))
    # Sentences of like length together: padding would be half of the work otherwise.
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    batches = [order[i : i + batch] for i in range(0, len(order), batch)]
    total = epochs * len(batches)
    warmup = min(300, total // 10 + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warmup, 0.5 * (1 + math.cos(math.pi * s / total)) + 1e-3)
    )
    nothing = torch.zeros(batch, 1, width)
    mask = torch.ones(batch, 1)
    start = time.time()
    step = 0
    for epoch in range(epochs):
        decoder.train()
        for b in torch.randperm(len(batches)).tolist():
            texts = [sentences[i] for i in batches[b]]
            n = len(texts)
            loss, _ = decoder(nothing[:n], mask[:n], decoder.batch(texts, 32, nothing.device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if step % 20 == 0:
                left = (time.time() - start) / step * (total - step) / 60
                print(f"\rwords: step {step}/{total} loss {loss.item():.3f} left {left:.1f} min ", end="", flush=True)
        print(
            f"\rwords: epoch {epoch + 1}/{epochs} held-out perplexity {perplexity(decoder, unseen, width):.2f}",
            flush=True,
        )
    return perplexity(decoder, unseen, width)


@torch.no_grad()
def perplexity(decoder: TextDecoder, sentences: list[str], width: int, batch: int = 64) -> float:
    """exp of the mean negative log-likelihood a token, nothing seen."""
    decoder.eval()
    total, count = 0.0, 0
    for i in range(0, len(sentences), batch):
        part = sentences[i : i + batch]
        text = decoder.batch(part, 32, torch.device("cpu"))
        _, logits = decoder(torch.zeros(len(part), 1, width), torch.ones(len(part), 1), text)
        targets = text.targets[:, 1:]
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
        )
        total += loss.item()
        count += int((targets != -100).sum())
    return math.exp(total / count)
