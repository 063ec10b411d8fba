"""The plan in the report: computed again from what the run's status says of the model."""

from html import escape
from typing import Any

from lprl_api.errors import UserError
from lprl_api.model.model_shape import Inspection
from lprl_api.rules.parse import parse_job
from lprl_cli.report.charts import bar
from lprl_cli.report.style import cell, table
from lprl_cli.runfolder import RunFolder


def plan_section(found: RunFolder) -> str:
    """Roles, and a bar per group of like GPUs (processes on a CPU)."""
    job = found.job()
    inspected = (job.get("status") or {}).get("inspection")
    if not job or inspected is None:
        return '<p class="empty">The run ended before it was planned.</p>'
    from lprl_operator.plan.explain import explain
    from lprl_operator.plan.plan import make_plan

    document = {key: job[key] for key in ("apiVersion", "kind", "metadata", "spec")}
    try:
        plan = make_plan(parse_job(document).spec, inspection=Inspection.model_validate(inspected))
    except UserError as error:
        return f'<p class="bad">{escape(error.message)}</p>'
    roles = [[cell(r.name), cell(r.nodes, float(r.nodes)), cell(r.description)] for r in plan.roles]
    parts = [table([("role", False), ("pods", True), ("what", False)], roles)]
    rows = []
    for group in plan.gpus:
        last = group.first_rank + group.count - 1
        name = f"{group.role} {group.first_rank}-{last}" if last > group.first_rank else f"{group.role} {group.first_rank}"
        for phase in group.phases:
            items = [(i.cause, float(i.bytes)) for i in phase.items if i.bytes]
            label = f"{name}, {phase.name}: {phase.total_bytes / 2**30:.2f} GiB"
            limit = f" of {group.limit_bytes / 2**30:.1f}" if group.limit_bytes else ""
            size = f"{phase.total_bytes / 2**30:,.2f}{limit} GiB"
            rows.append(
                [cell(name), cell(phase.name), cell("", raw=bar(items, float(group.limit_bytes), label)), cell(size), cell(_causes(items))]
            )
    parts.append(table([("ranks", False), ("phase", False), ("memory", False), ("bytes", False), ("largest", False)], rows))
    parts.append(f"<details><summary>the plan in words</summary><pre>{escape(explain(plan))}</pre></details>")
    return "".join(parts)


def _causes(items: list[tuple[str, Any]]) -> str:
    largest = sorted(items, key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {size / 2**20:,.0f} MiB" for name, size in largest)
