"""A config.json that counts more layers or experts than fit into memory is refused before anything is made for each of them."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

MEMORY = 8 << 30
"""Bytes of address space: libraries take one or two of these, four thousand million layers hundreds."""
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256,
}  # fmt: skip
_READERS = {
    "plan": "from lprl_cli.config_json import inspection_of; inspection_of(sys.argv[1] + '/config.json')",
    "inspect": "from pathlib import Path; from lprl_workload.folder.model import read_contents; read_contents(Path(sys.argv[1]))",
}
_TOLD = """
import sys
from lprl_api.errors import UserError
try:
    {}
except UserError as error:
    print(error.message)
"""


@pytest.mark.parametrize("reader", _READERS)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_hidden_layers": 4_000_000_000}, "num_hidden_layers: got 4000000000; needs at most 4096"),
        ({"num_nextn_predict_layers": 4_000_000_000}, "num_nextn_predict_layers: got 4000000000; needs at most 4096"),
        ({"text_config": {"num_experts": 4_000_000_000}}, "num_experts: got 4000000000; needs at most 65536"),
    ],
    ids=["layers", "mtp", "experts"],
)
def test_counts_beyond_any_model_are_refused(reader: str, change: dict[str, object], told: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | change))
    child = subprocess.run(
        [sys.executable, "-c", _TOLD.format(_READERS[reader]), str(tmp_path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )
    assert child.returncode == 0 and told in child.stdout, child.stdout + child.stderr[-500:]
