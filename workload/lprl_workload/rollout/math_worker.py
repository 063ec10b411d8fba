"""`python -m lprl_workload.rollout.math_worker`: judges answers with math-verify, one JSON line in, one out.

A process of its own, because math-verify's time limits are signals, which work in a main thread only, and because what
ignores signals (a huge power in C code) can only be killed.
"""

import json
import os
import sys

from lprl_workload.rollout.math_exact import confirmed


def judge(response: str, label: str, limit_s: int) -> bool:
    """Return whether the boxed or last answer of `response` equals `label`; unparsable or too slow is False."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    kinds = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    gold = parse(f"\\boxed{{{label}}}", extraction_config=kinds, parsing_timeout=limit_s)
    found = parse(response, extraction_config=kinds, parsing_timeout=limit_s)
    # Parsed texts are believed only beside each other: compared with values they say nothing.
    # An inequality is the interval of its solutions, whichever of the two the label is.
    return any(verify(g, f, timeout_seconds=limit_s, allow_set_relation_comp=True) and confirmed(g, f) for g in gold for f in found)


def main() -> None:
    """Answer `[response, label, seconds]` lines with `true` or `false` until the input ends."""
    # What a library prints, from Python or from C, must not be taken for a verdict: its stdout is stderr.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for line in sys.stdin:
            response, label, limit_s = json.loads(line)
            answers.write(json.dumps(judge(response, label, limit_s)) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
