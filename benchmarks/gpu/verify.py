"""`lprl verify --prompts` on the CPU and on the GPU: the same figures but for rounding, how long each takes, how much memory.

Needs a GPU. Converts a model to some formats, has the model answer questions itself (as docs/converting.md recommends), and verifies each
format on both devices, each in a process of its own. Without --model: SmolLM2-135M-Instruct (`make setup-real`). OUT/verify.json holds
every figure.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.real.run import model_folder
from benchmarks.real.served import FORMS, TOPICS
from benchmarks.training import say

FORMATS = {
    "fp8-channel": ("--to", "fp8-channel"),
    "fp8-block": ("--to", "fp8-block"),
    "int4-g64": ("--to", "int4-group", "--group-size", "64"),
    "int4-g32": ("--to", "int4-group", "--group-size", "32"),
}
TOKENS = 64
DEVICES = ("cuda", "cpu")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a BF16 model")
    parser.add_argument("--out", type=Path, default=Path("bench-out/verify"))
    parser.add_argument("--texts", type=int, default=51, help="questions answered (default 51)")
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=["fp8-channel", "fp8-block", "int4-g64"])
    parser.add_argument("--sensitivity", default="4", help="of the last format; the others are measured without (default 4 texts)")
    parser.add_argument("--devices", nargs="+", choices=DEVICES, default=list(DEVICES))
    return parser.parse_args()


def draw_answers(model: Path, count: int, file: Path, device: str) -> None:
    """Write `count` questions with an answer of at most `TOKENS` tokens that the model drew at temperature 1."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    whole = AutoModelForCausalLM.from_pretrained(str(model), local_files_only=True, dtype=dtype).to(device).eval()
    tokenizer.padding_side = "left"
    chats = [[{"role": "user", "content": FORMS[n % len(FORMS)].format(TOPICS[n // len(FORMS) % len(TOPICS)])}] for n in range(count)]
    asked = tokenizer.apply_chat_template(chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True)
    torch.manual_seed(0)
    with torch.no_grad():
        ids = whole.generate(**asked.to(device), max_new_tokens=TOKENS, do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
    answers = tokenizer.batch_decode(ids[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    rows = [{"prompt": chat, "response": answer or " "} for chat, answer in zip(chats, answers, strict=True)]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def measure() -> int:
    """Run one verification in this process and print, on the last line, what it took (how this file calls itself)."""
    import resource

    from lprl_workload.compare.cli import verify_command

    began = time.monotonic()
    code = verify_command(sys.argv[2:])
    used: dict[str, Any] = {"seconds": time.monotonic() - began, "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if torch.cuda.is_initialized():
        used |= {"cuda": torch.cuda.max_memory_allocated(), "cuda_reserved": torch.cuda.max_memory_reserved()}
    print(json.dumps(used))
    return code


def verify(folder: Path, source: Path, texts: Path, device: str, sensitivity: str, out: Path) -> dict[str, Any]:
    """Return the answers' figures of one verification, and what it took; the model's own start is not counted."""
    told = ["--prompts", str(texts), "--response-key", "response", "--device", device, "--sensitivity", sensitivity, "--json", str(out)]
    command = [sys.executable, "-m", "benchmarks.gpu.verify", "measure", str(folder), "--source", str(source), *told]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{folder} on {device}: exit {done.returncode}\n{done.stderr[-3000:]}")
    found = json.loads(out.read_text())["answers"]
    return (
        {"distance": found["distance"], "parts": (found.get("sensitivity") or {}).get("parts", [])}
        | {"process_seconds": time.monotonic() - began}
        | json.loads(done.stdout.splitlines()[-1])
    )


def convert(model: Path, formats: list[str], out: Path) -> None:
    """Convert to every format side by side."""
    folders = {name: out / name for name in formats if not (out / name).exists()}
    commands = {n: [sys.executable, "-m", "lprl_workload", "convert-all", str(model), str(f), *FORMATS[n]] for n, f in folders.items()}
    started = {name: subprocess.Popen(command, stdout=subprocess.DEVNULL) for name, command in commands.items()}
    failed = [name for name, process in started.items() if process.wait()]
    if failed:
        raise SystemExit(f"not converted: {', '.join(failed)}")


def main() -> int:
    args = arguments()
    if "cuda" in args.devices and not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU here: --devices cpu measures the CPU alone")
    args.out.mkdir(parents=True, exist_ok=True)
    model, texts = model_folder(args.model, args.out), args.out / "answers.jsonl"
    if not texts.is_file():
        draw_answers(model, args.texts, texts, args.devices[0])
    convert(model, args.formats, args.out)
    found: dict[str, dict[str, Any]] = {}
    for name in args.formats:
        sensitivity = args.sensitivity if name == args.formats[-1] else "none"
        for device in args.devices:
            result = verify(args.out / name, model, texts, device, sensitivity, args.out / f"{name}-{device}.json")
            found.setdefault(name, {})[device] = result
            (args.out / "verify.json").write_text(json.dumps(found, indent=1))
            say(line(name, device, result))
    return 0


def line(name: str, device: str, result: dict[str, Any]) -> str:
    d = result["distance"]
    memory = f"{result['rss'] / 2**20:.0f} MiB of memory" + (f", {result['cuda'] / 2**20:.0f} MiB of the GPU's" if "cuda" in result else "")
    figures = f"KL {d['klMean']:.4f} p99 {d['klP99']:.3f} top-1 {d['top1Agreement']:.4f} -log p {d['nllSource']:.4f} {d['nllChange']:+.4f}"
    most = sorted(result["parts"], key=lambda part: -part["recovered"])[:3]
    parts = "".join(f" {part['modules']} {part['recovered']:.3f}" for part in most)
    return f"{name} {device} ({os.cpu_count()} CPUs): {figures}; {result['seconds']:.1f} s, {memory}{parts}"


if __name__ == "__main__":
    sys.exit(measure() if sys.argv[1:2] == ["measure"] else main())
