"""The webhook and the operator look at manifests with large numbers (test_large_numbers.py), in a process of its own, which can be ended.

stdin: a line of JSON for each, `[NAME, MANIFEST]`. stdout: `begins NAME`, then `[NAME, ALLOWED, MESSAGE]`.
"""

import json
import resource
import sys
from datetime import UTC, datetime

from lprl_operator.admission import review
from lprl_operator.controller import consider
from lprl_operator.decide.observed import Observed
from lprl_operator.resources.settings import RenderSettings

MEMORY, PROCESSOR_S = 4 << 30, 120
"""Bytes: a list of 2^31 numbers ends it with an error. Seconds of a processor, of which it takes 10 to 15, on a busy machine too."""


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_S, PROCESSOR_S))
    for line in sys.stdin:
        name, document = json.loads(line)
        print(f"begins {name}", flush=True)
        answer = review({"uid": "1", "operation": "CREATE", "object": document})
        consider(document, Observed(), datetime.now(UTC), RenderSettings())
        print(json.dumps([name, answer["allowed"], answer.get("status", {}).get("message")]), flush=True)


if __name__ == "__main__":
    main()
