"""The model the lookup task starts from: small, and taught by examples to write calls, but mostly not to.

Random weights never write a call by chance, so there would be nothing to reinforce. Supervised steps on played conversations teach it
to ask and to repeat what it is told, then bad habits: in eight of ten conversations it says 00 without asking, and after most answers it
says 00 all the same. Keys and values of these conversations are drawn at random, so it knows no value. RL has to do the rest.
"""

import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from lprl_fixtures.architectures import Size
from lprl_fixtures.generate import ModelOptions, generate_model
from lprl_fixtures.lookup import DESCRIPTION, KEY_LETTERS, SEE
from lprl_fixtures.tokenizer import build_tool_tokenizer

ASKS, BELIEVES = 0.2, 0.5
"""Shares in the end: of conversations in which it asks the tool, and of answers it repeats."""
LAZY = "00"
"""What it says otherwise."""
TOOL = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": DESCRIPTION,
        "parameters": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
    },
}
"""As chat templates take it."""
STEPS, HABITS, ROWS, LEARNING_RATE = 150, 30, 48, 3e-3
"""Steps in which it is taught the task, and then habits; conversations of a step."""
WEIGHTS = "model.safetensors"
Message = dict[str, Any]


def _digits(rng: random.Random) -> str:
    return f"{rng.randrange(100):02d}"


def _key(rng: random.Random, first: str = string.ascii_lowercase) -> str:
    return rng.choice(first) + "".join(rng.choices(string.ascii_lowercase, k=KEY_LETTERS - 1))


def _ask(key: str, answer: str) -> list[Message]:
    call = {"type": "function", "function": {"name": "lookup", "arguments": {"key": key}}}
    return [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "name": "lookup", "content": answer}]


def conversation(rng: random.Random, asks: float = ASKS, believes: float = BELIEVES) -> list[Message]:
    """Play one conversation, by default as the starting model behaves."""
    key, found = _key(rng), _digits(rng)
    messages: list[Message] = [{"role": "user", "content": key}]
    if rng.random() >= asks:
        return [*messages, {"role": "assistant", "content": LAZY}]
    if rng.random() < 0.5:
        other = _key(rng, "x")
        messages += _ask(key, SEE + other)
        key = other
    messages += _ask(key, found)
    return [*messages, {"role": "assistant", "content": found if rng.random() < believes else LAZY}]


def batches(
    tokenizer: Any, seed: int, steps: int = STEPS, habits: int = HABITS, rows: int = ROWS
) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Yield `rows` conversations a step, `steps` of the task, then `habits` of the habits.

    Those of one length come together: token ids and targets, int64 [rows, length] each, targets -100 where the assistant does
    not speak.
    """
    rng = random.Random(f"played:{seed}")
    start, end = (tokenizer.convert_tokens_to_ids(token) for token in ("<|assistant|>", "<|end|>"))
    for step in range(steps + habits):
        shares = (1.0, 1.0) if step < steps else (ASKS, BELIEVES)
        by_length: dict[int, list[tuple[list[int], list[int]]]] = {}
        for _ in range(rows):
            text = tokenizer.apply_chat_template(conversation(rng, *shares), tools=[TOOL], tokenize=False)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            by_length.setdefault(len(ids), []).append((ids, _targets(ids, start, end)))
        yield [(torch.tensor([ids for ids, _ in like]), torch.tensor([targets for _, targets in like])) for like in by_length.values()]


def _targets(ids: list[int], start: int, end: int) -> list[int]:
    found, speaks = [], False
    for token in ids:
        found.append(token if speaks else -100)
        speaks = (speaks and token != end) or token == start
    return found


def write_lookup_model(
    folder: Path, seed: int = 0, steps: int = STEPS, habits: int = HABITS, size: Size = "demo", rows: int = ROWS
) -> float:
    """Write a Hugging Face folder of a Qwen3 model, BF16, taught as above (CPU, half a minute); returns the last loss, nats a token."""
    from transformers import AutoConfig, AutoModelForCausalLM

    generate_model(folder, ModelOptions("qwen3", size, seed=seed), build_tool_tokenizer)
    tokenizer = build_tool_tokenizer()
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(folder)), dtype=torch.float32)
    model.load_state_dict(load_file(str(folder / WEIGHTS)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 50) * (1 - step / (steps + habits)))
    loss = torch.zeros(())
    for parts in batches(tokenizer, seed, steps, habits, rows):
        logits = torch.cat([model(ids).logits[:, :-1].flatten(0, 1) for ids, _ in parts])
        loss = functional.cross_entropy(logits, torch.cat([targets[:, 1:].flatten() for _, targets in parts]), ignore_index=-100)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warm.step()
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, str(folder / WEIGHTS), metadata={"format": "pt"})
    return float(loss.detach())
