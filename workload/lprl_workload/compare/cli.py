"""`verify`: is the folder what its conversion made, how far are its weights from the source's, and how far are its answers?

What works with weights is imported when the command line is known to be right, and what runs models when texts are given: seconds each.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lprl_api.errors import UserError
from lprl_api.names import ExitCode
from lprl_api.wire.answers import Answers
from lprl_workload.compare.checkpoints import checkpoints_in, verify_checkpoints
from lprl_workload.convert.console import ProgressLine, Tick
from lprl_workload.process.arguments import UsageError, count, parser, positive_number
from lprl_workload.process.cpus import available_cpus
from lprl_workload.process.loading import loading

HELP = """Check a converted or published folder: the digest of every file against manifest.json, index and config.json against the
tensors, and with --source the error of every tensor. For INT4 it says what re-quantising by the own rule would change.
Of a run folder, or one step of it: every byte of every checkpoint (a job compares a sample at its start).

With --prompts it runs both models over a file of texts, one layer in memory at a time, and says what became of the answers: mean, median
and 99th percentile of KL(source || converted) per token, how often the likeliest token is the same, the change of the mean negative
log-likelihood, and which layers the conversion is felt in: each layer, its attention and its MLP in turn left at the source's weights.
Activations are those config.json says (FP8 with activations none or dynamic). Advice follows: layers to leave out, a smaller group size,
or no INT4 without training for it.

Tokens that count: those of the response and its end token, where a row has one (--response-key, or a last message of the assistant's);
else every token of the text but the first. Prompts go through the chat template as in a job; lines of a .txt file are taken as they are.
Cost: reading both folders once and 2 forward passes over all texts, then L x L x 1.5 layer passes over the --sensitivity texts (L layers),
and one more pass over all texts for each piece of advice that names a figure."""
EXAMPLES = """  python -m lprl_workload verify Qwen3-4B-FP8
  python -m lprl_workload verify Qwen3-4B-FP8 --source Qwen3-4B --max-error 0.04
  python -m lprl_workload verify volumes/checkpoints/checkpoints/first/step-000120
  python -m lprl_workload verify Kimi-K2-Thinking               (how far is its INT4 from the own rule?)
  python -m lprl_workload verify Qwen3-4B-INT4 --source Qwen3-4B --prompts prompts.jsonl --response-key answer
  python -m lprl_workload verify Qwen3-4B-INT4 --source Qwen3-4B --prompts book.txt --rows 64 --sensitivity none --json answers.json"""
NEED_PROMPTS = ("prompt_key", "response_key", "no_chat_template", "rows", "max_tokens", "sensitivity", "device", "picture")
"""Options that mean nothing without --prompts."""


def _sensitivity(text: str) -> int:
    """Parse none, full or a number of texts -> texts."""
    return {"none": 0, "full": sys.maxsize}[text] if text in ("none", "full") else count(text)


def _options() -> argparse.ArgumentParser:
    options = parser("verify", HELP, EXAMPLES)
    options.add_argument("folder", type=Path, metavar="FOLDER", help="converted folder, run folder or step folder")
    options.add_argument("--source", type=Path, metavar="FOLDER", help="the folder it was made from")
    options.add_argument("--max-error", type=positive_number, metavar="X", help="with --source: refuse a relative RMS error above X")
    options.add_argument("--output", choices=("table", "json"), default="table", help="default table")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too, as --output json prints them")
    options.add_argument("--top", type=count, default=20, metavar="N", help="worst tensors, and most sensitive parts, shown; default 20")
    more = options.add_argument_group("answers (with --source)")
    more.add_argument("--prompts", type=Path, metavar="FILE", help=".jsonl or .parquet with a prompt a row, or .txt with a text a line")
    more.add_argument("--prompt-key", metavar="KEY", help="column with the prompt, text or chat messages; default prompt")
    more.add_argument("--response-key", metavar="KEY", help="column with the answer, as text; it alone counts then")
    more.add_argument("--no-chat-template", action="store_true", help="take prompts as they are")
    more.add_argument("--rows", type=count, metavar="N", help="rows used, from the first; default all")
    more.add_argument("--max-tokens", type=count, metavar="N", help="leave longer texts out")
    more.add_argument(
        "--sensitivity",
        type=_sensitivity,
        metavar="none|N|full",
        help="texts on which layers are told apart, spread over the file; default 8",
    )
    more.add_argument("--max-kl", type=positive_number, metavar="X", help="refuse a mean KL above X nats")
    more.add_argument("--device", choices=("cpu", "cuda"), help="default cpu; float32 there, bfloat16 on cuda")
    more.add_argument("--picture", type=Path, metavar="FILE", help="SVG of what each layer brings back (drawn by `lprl verify`)")
    options.add_argument("--threads", type=count, metavar="N", help="CPU threads; default: all")
    return options


def _check(chosen: argparse.Namespace) -> None:
    if chosen.max_error is not None and chosen.source is None:
        raise UsageError("--max-error: there is nothing to compare with", "give the folder this one was made from with --source")
    if chosen.prompts is not None and chosen.source is None:
        raise UsageError("--prompts: there is nothing to compare the answers with", "give the folder this one was made from with --source")
    for name in (*NEED_PROMPTS, "max_kl"):
        if chosen.prompts is None and getattr(chosen, name) not in (None, False):
            raise UsageError(f"--{name.replace('_', '-')}: there are no texts to run", "give a file of texts with --prompts")
    if chosen.picture is not None:
        raise UsageError("--picture: drawn by the command line of the operator, which is not here", "use `lprl verify`, or take --json")
    if chosen.device == "cuda" and not _has_cuda():
        raise UsageError("--device cuda: torch finds no GPU here", "leave it out, or run it where `lprl doctor` finds one")


def _has_cuda() -> bool:
    with loading(keep=True):
        import torch
    return torch.cuda.is_available()


def verify_command(argv: Sequence[str]) -> int:
    """Check a converted folder."""
    chosen = _options().parse_args(argv)
    _check(chosen)
    if steps := checkpoints_in(chosen.folder):
        return verify_checkpoints(steps, chosen.output)
    with loading(keep=True):
        import torch

        from lprl_workload.compare.table import verification_table
        from lprl_workload.convert.verify import verify_folder
    torch.set_num_threads(chosen.threads or available_cpus())
    found = verify_folder(chosen.folder, chosen.source, chosen.max_error)
    if chosen.prompts is not None and not found.problems:
        found = found.model_copy(update={"answers": _answers(chosen)})
    document = found.model_dump_json(by_alias=True, indent=1)
    if chosen.json is not None:
        chosen.json.write_text(f"{document}\n", encoding="utf-8")
    print(document if chosen.output == "json" else verification_table(found, chosen.top))
    if found.problems:
        more = len(found.problems) - 1
        told = f" ({more} more above)" if more else ""
        raise UserError(f"{found.folder}: {found.problems[0]}{told}", "convert the source again")
    if found.answers is not None and chosen.max_kl is not None:
        check_limit(found.folder, found.answers, chosen.max_kl)
    return ExitCode.OK


def check_limit(folder: str, answers: Answers, limit: float) -> None:
    """Refuse answers further from the source's than `limit` nats a token. Raises UserError with figures and what to do."""
    distance = answers.distance
    if distance.kl_mean <= limit:
        return
    what = f"{folder}: mean KL {distance.kl_mean:.3g} is above the limit {limit:g} (p99 {distance.kl_p99:.3g}, "
    fits = [advice.text for advice in answers.advice if advice.kl_mean is not None and advice.kl_mean <= limit]
    remedy = fits[0] if fits else "take a finer format, train for it (int4-qat, fp8-qat), or raise the limit"
    raise UserError(f"{what}top-1 agreement {distance.top1_agreement:.1%})", remedy)


def _answers(chosen: argparse.Namespace) -> Answers:
    """Run both models over the texts, with a line of progress."""
    with loading(keep=True):
        from lprl_workload.compare.compare import SENSITIVITY_TEXTS, Wanted, compare_folders
        from lprl_workload.compare.texts import Reading
    reading = Reading(chosen.prompt_key or "prompt", chosen.response_key, not chosen.no_chat_template, (0, chosen.rows), chosen.max_tokens)
    texts = SENSITIVITY_TEXTS if chosen.sensitivity is None else chosen.sensitivity
    line = ProgressLine()
    started: dict[str, float] = {}

    def on_pass(what: str, done: int, total: int) -> None:
        since = time.monotonic() - started.setdefault(what, time.monotonic())
        line.show(Tick(what, done, total, 0, since, "layer passes"))

    try:
        return compare_folders(chosen.folder, chosen.source, chosen.prompts, Wanted(reading, texts, chosen.device or "cpu"), on_pass)
    finally:
        line.close()
