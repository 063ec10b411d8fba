"""docs/families.md out of the zoo's table and the tables of what trains: `python -m tests.zoo.table > docs/families.md`."""

from pathlib import Path

from tests.zoo.families import ALL, TABLES_INSIDE, Case

from lprl_api.catalog.images import HELD
from lprl_api.model.hf_config import ARCHITECTURES, FAMILIES
from lprl_api.model.layouts.decoders import DECODERS
from lprl_api.model.layouts.planned import BUILDERS
from lprl_api.model.proven import PROVEN

PAGE = Path(__file__).with_name("page.md")
"""The page; ROWS stands for the table's."""
TABLES = {
    "llama": "Llama 3",
    "qwen2": "Qwen2.5",
    "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3-MoE",
    "deepseek_v3": "DeepSeek-V3, R1, V3.1, Moonlight",
    "kimi_k2": "Kimi-K2",
}


def row(case: Case) -> str:
    """Return a model type's row."""
    plan = "yes" if case.model_type in DECODERS or case.model_type in BUILDERS else "no"
    convert = f"experts refused: {case.refused}" if case.refused else "exact"
    convert += f" ({', '.join(case.unread)}: by the decoder alone)" if case.unread else ""
    return f"| {case.model_type} | {case.models} | {convert} | {case.way} | {plan} | {_train(case)} | not tried |"


def _train(case: Case) -> str:
    return "torch, by its class" if case.model_type in PROVEN else "no"


def page() -> str:
    """Return docs/families.md."""
    trainers = ", ".join(HELD["trainer"])
    rows = [f"| {t} | {TABLES[t]} | exact | table ({ARCHITECTURES[family]}) | yes | {trainers} | yes |" for t, family in FAMILIES.items()]
    rows += [row(case) for case in sorted(ALL, key=lambda case: case.model_type)]
    rows += [f"| {c.model_type} | {c.models} | exact | table of its text_config | yes | {_train(c)} | not tried |" for c in TABLES_INSIDE]
    return PAGE.read_text().replace("ROWS", "\n".join(rows))


if __name__ == "__main__":
    print(page(), end="")
