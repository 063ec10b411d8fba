"""docs/families.md out of the zoo's table and the tables of what trains: `python -m tests.zoo.table > docs/families.md`."""

from pathlib import Path

from tests.zoo.families import ALL, TABLES_INSIDE, Case
from tests.zoo.tiny import tiny_config

from lprl_api.errors import UserError
from lprl_api.model.hf_config import ARCHITECTURES, FAMILIES
from lprl_api.model.layouts.planned import planned_shape
from lprl_api.model.megatron import ON_CPUS, STAGED
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
    convert = f"experts refused: {case.refused}" if case.refused else "exact"
    convert += f" ({', '.join(case.unread)}: by the decoder alone)" if case.unread else ""
    names = "table of its text_config" if case in TABLES_INSIDE else case.way
    return f"| {case.model_type} | {case.models} | {convert} | {names} | {_plan(case)} | {_torch(case)} | {_megatron(case)} | no |"


def _plan(case: Case) -> str:
    try:
        shape = planned_shape(tiny_config(case.model_type, case.changes).to_dict())
    except UserError:
        return "no"
    return "yes" if shape.tower_parameters is not None else "language model"


def _torch(case: Case) -> str:
    return "by its class" if case.model_type in PROVEN else "no"


def _megatron(case: Case) -> str:
    if case.model_type not in STAGED:
        return "no"
    return "on CPUs" if case.model_type in ON_CPUS else "yes"


def page() -> str:
    """Return docs/families.md."""
    rows = [f"| {t} | {TABLES[t]} | exact | table ({ARCHITECTURES[family]}) | yes | yes | yes | yes |" for t, family in FAMILIES.items()]
    rows += [row(case) for case in (*sorted(ALL, key=lambda case: case.model_type), *TABLES_INSIDE)]
    return PAGE.read_text().replace("ROWS", "\n".join(rows))


if __name__ == "__main__":
    print(page(), end="")
