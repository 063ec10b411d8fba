"""usage: python sglang_sample.py FOLDER PROMPTS.json OUT.json PORT : what SGLang draws from a folder, with its log-probabilities.

Runs in SGLang's own environment and imports nothing of this project. PROMPTS.json is {"ids": [[token id, ...], ...], "eos": id};
OUT.json becomes {"sglang": version, "ids": [[...], ...], "logprobs": [[...], ...]} of answers drawn at temperature 1, all prompts at
once, at most 64 tokens each. The output head's product is float32, as the trainer's is.
"""

import json
import sys
from pathlib import Path

TOKENS = 64


def main() -> None:
    import sglang

    folder, prompts, out, port = sys.argv[1:5]
    book = json.loads(Path(prompts).read_text())
    engine = sglang.Engine(
        model_path=folder,
        dtype="bfloat16",
        enable_fp32_lm_head=True,
        attention_backend="triton",
        sampling_backend="pytorch",
        grammar_backend="none",
        disable_prefill_cuda_graph=True,
        cuda_graph_bs_decode=[1, 8, 64, 256],
        disable_radix_cache=True,
        skip_tokenizer_init=True,
        skip_server_warmup=True,
        chunked_prefill_size=4096,
        context_length=4096,
        max_total_tokens=65536,
        max_running_requests=256,
        mem_fraction_static=0.5,
        random_seed=1,
        port=int(port),
    )
    sampling = {"temperature": 1.0, "max_new_tokens": TOKENS, "stop_token_ids": [book["eos"]]}
    replies = engine.generate(input_ids=book["ids"], sampling_params=sampling, return_logprob=True)
    drawn = [reply["meta_info"]["output_token_logprobs"] for reply in replies]
    document = {
        "sglang": sglang.__version__,
        "ids": [[entry[1] for entry in answer] for answer in drawn],
        "logprobs": [[entry[0] for entry in answer] for answer in drawn],
    }
    part = Path(f"{out}.part")
    part.write_text(json.dumps(document))
    part.replace(out)
    engine.shutdown()


if __name__ == "__main__":
    main()
