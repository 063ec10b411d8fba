"""A verification as a table for a terminal."""

from statistics import median

from lprl_api.wire.answers import Answers, PartSensitivity, Sensitivity
from lprl_workload.convert.verify import Verification

BAR = 24
"""Width of the bar of the part that brings back most."""


def verification_table(found: Verification, top: int) -> str:
    """Return a verification for people: digests, the worst tensors, and the answers where they were measured."""
    rows = [
        f"{found.folder}: {found.format}, {found.files} files match their digests" if found.files else f"{found.folder}: {found.format}"
    ]
    exact = [t.by_the_rule for t in found.tensors if t.by_the_rule is not None]
    if found.tensors:
        rows.append(f"{len(found.tensors)} tensors compared; {sum(exact)} of {len(exact)} quantised ones are bit for bit the quantizer's")
    if found.rule_difference is not None:
        share = found.rule_difference.changed_values / max(found.rule_difference.values, 1)
        rows.append(
            f"re-quantising by the own INT4 rule changes {share:.2%} of the values, {found.rule_difference.codes_minus_8} codes are -8"
        )
        if found.rule_difference.changed_values:
            kept = found.rule_difference.changed_on_its_grid / max(found.rule_difference.values, 1)
            rows.append(f"by grid source (precision.int4.grid; --grid source) {kept:.2%} of them would change")
    errors = [t.relative_rms_error for t in found.tensors if t.by_the_rule is not None]
    if errors:
        rows.append(f"relative RMS: median {median(errors):.6f}, worst {max(errors):.6f} of {len(errors)} quantised tensors")
    worst = sorted((t for t in found.tensors if t.relative_rms_error), key=lambda t: (-t.relative_rms_error, t.name))[:top]
    rows += [f"{'rel. RMS':>10}  {'max |error|':>11}  tensor"] if worst else []
    rows += [f"{t.relative_rms_error:>10.6f}  {t.max_abs_error:>11.3e}  {t.name} ({t.format})" for t in worst]
    rows += [answers_table(found.answers, top)] if found.answers is not None else []
    return "\n".join([*rows, *(f"problem: {problem}" for problem in found.problems)])


def answers_table(found: Answers, top: int) -> str:
    """Return the figures, the `top` parts that bring back most, and the advice."""
    d = found.distance
    rows = [
        "",
        f"answers to {found.prompts}, {found.texts} texts on {found.device}: {_counted(found)}",
        *([f"left out         {found.left_out} longer texts"] if found.left_out else []),
        f"KL from source   mean {d.kl_mean:.3g}, median {d.kl_p50:.3g}, p99 {d.kl_p99:.3g} nats a token",
        f"top-1 agreement  {d.top1_agreement:.2%}",
        f"mean -log p      {d.nll_converted:.4f}, the source's {d.nll_source:.4f} ({d.nll_change:+.4f})",
    ]
    if found.sensitivity is not None:
        rows += ["", *_sensitivity(found.sensitivity, top)]
    return "\n".join([*rows, "", *(f"advice: {advice.text}" for advice in found.advice)]).rstrip()


def _counted(found: Answers) -> str:
    whole = found.texts - found.with_response
    tokens = f"{found.distance.positions} tokens count"
    if not whole:
        return f"{tokens}, all of responses (with their end token)"
    if not found.with_response:
        return f"{tokens}, every one but the first of a text"
    return f"{tokens}: those of {found.with_response} responses, and of {whole} texts without one every token but the first"


def _sensitivity(found: Sensitivity, top: int) -> list[str]:
    head = f"left at the source's weights, one at a time, on {found.texts} texts (mean KL there {found.kl_mean:.3g}):"
    ranked = sorted(found.parts, key=lambda part: -part.recovered)[:top]
    most = max((part.recovered for part in ranked), default=0.0)
    more = len(found.parts) - len(ranked)
    return [
        head,
        f"{'brings back':>11}  {'KL left':>8}  part",
        *(_part(part, most) for part in ranked),
        *([f"... and {more} more (--top)"] if more else []),
    ]


def _part(part: PartSensitivity, most: float) -> str:
    bar = "#" * round(BAR * part.recovered / most) if part.recovered > 0 else ""
    return f"{part.recovered:>10.1%}   {part.kl_mean:>8.3g}  {part.modules:<34} {bar}".rstrip()
