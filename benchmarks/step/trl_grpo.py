"""Steps of TRL's GRPO trainer, timed: trl_grpo.py MODEL QUESTIONS STEPS PROMPTS SAMPLES RESPONSE THREADS; prints a JSON list."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Timer(TrainerCallback):
    """Seconds of every step: generation, rewards, forward, backward, optimizer."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.generating = 0.0
        self.tokens = 0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self.began, self.generating, self.tokens = time.monotonic(), 0.0, 0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop it."""
        seconds = time.monotonic() - self.began
        self.rows.append({"seconds": seconds, "generate_seconds": self.generating, "tokens": self.tokens})


class Timed(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer; tells how long generation takes."""

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        before = time.monotonic()
        found = super()._generate(*args, **kwargs)
        timer.generating += time.monotonic() - before
        return found


def reward(completions: list[list[dict[str, str]]], completion_ids: list[list[int]], label: list[str], **kwargs: Any) -> list[float]:
    timer.tokens += sum(map(len, completion_ids))
    return [float(said[0]["content"].strip() == wanted) for said, wanted in zip(completions, label, strict=True)]


timer = Timer()


def main() -> None:
    model, questions = sys.argv[1:3]
    steps, prompts, samples, response, threads = map(int, sys.argv[3:])
    torch.set_num_threads(threads)
    rows = [json.loads(line) for line in Path(questions).read_text().splitlines()]
    settings = GRPOConfig(
        output_dir="trl", max_steps=steps, per_device_train_batch_size=prompts * samples, num_generations=samples,
        max_completion_length=response, learning_rate=3e-5, beta=0.0, temperature=1.0, use_cpu=True, bf16=False,
        gradient_checkpointing=False, save_strategy="no", report_to=[], disable_tqdm=True, seed=0,
        model_init_kwargs={"dtype": "float32"},
    )  # fmt: skip
    trainer = Timed(model=model, args=settings, reward_funcs=reward, train_dataset=Dataset.from_list(rows), callbacks=[timer])
    trainer.train()
    print(json.dumps(timer.rows))


if __name__ == "__main__":
    main()
