"""The report's warning about a run whose first rewards were all the same."""

from html import escape

from lprl_cli.live import number
from lprl_cli.report.style import cell, table
from lprl_cli.runfolder import RunFolder, read_object


def rewards_section(found: RunFolder) -> str:
    """Return samples as the scorer saw them where every reward of the first steps was the same; empty for other runs."""
    signal = read_object(found.run / "rewards.json")
    if signal.get("state") not in ("all-zero", "all-equal"):
        return ""
    value, responses, steps = number(signal.get("value")), signal.get("responses"), signal.get("steps")
    head = [("end of the prompt", False), ("response", False), ("label", False), ("reward", True)]
    rows = [
        [cell(s.get("prompt", "")), cell(s.get("response", "")), cell(s.get("label", "")), cell(number(s.get("reward")))]
        for s in signal.get("samples") or ()
        if isinstance(s, dict)
    ]
    text = (
        f"Every reward of the first {steps} steps was {value} ({responses} responses): nothing can be learned from that. "
        "Do prompt, response and label fit, as the scorer saw them?"
    )
    return f'<h2>Rewards</h2><p style="color:var(--bad)">{escape(text)}</p>{table(head, rows)}'
