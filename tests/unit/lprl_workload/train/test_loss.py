"""The loss against plain-Python formulas, token by token, for every objective and correction."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from lprl_api.spec.algorithm import Algorithm, Correction
from lprl_workload.train.correction import correction_weights
from lprl_workload.train.diagnostics import TOKEN_SUMS, means, mismatch_k3, token_sums
from lprl_workload.train.kl import kl_estimate, kl_per_token
from lprl_workload.train.loss import Denominators, TokenBatch, compute_loss

# Two samples: three tokens with A = 1.5, two with A = -0.7 (and one padding cell).
L = [[-1.0, -0.5, -2.0], [-0.3, -1.2]]
O = [[-1.3, -0.5, -1.1], [-0.9, -1.1]]  # noqa: E741
F = [[-1.2, -1.5, -1.1], [-0.9, -3.1]]
REF = [[-1.1, -0.7, -1.0], [-0.5, -1.6]]
A = [1.5, -0.7]
H = [[0.4, 0.5, 0.6], [0.7, 0.8]]
DENOMINATORS = Denominators(samples=4, tokens=10, most_drawn=8)


def pad(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor([row + [0.0] * (3 - len(row)) for row in rows])


def batch(reference: bool = False) -> TokenBatch:
    return TokenBatch(
        logp=pad(L).requires_grad_(),
        old=pad(O),
        rollout=pad(F),
        advantage=pad([[a] * len(r) for a, r in zip(A, L, strict=True)]),
        mask=pad([[1.0] * len(r) for r in L]),
        entropy=pad(H),
        reference=pad(REF) if reference else None,
    )


def algorithm(name: str = "grpo", **changes: Any) -> Algorithm:
    return Algorithm.model_validate({"name": name, "steps": 1, **changes})


def clip(x: float) -> float:
    return min(max(x, 0.8), 1.28)


def token_pg(name: str, dual: float | None) -> list[list[float]]:
    rows = []
    for l_row, o_row, a in zip(L, O, A, strict=True):
        mean = sum(l - o for l, o in zip(l_row, o_row, strict=True)) / len(l_row)  # noqa: E741
        row = []
        for l, o in zip(l_row, o_row, strict=True):  # noqa: E741
            ratio = math.exp(mean if name == "gspo" else l - o)
            if name == "cispo":
                row.append(-clip(ratio) * a * l)
                continue
            value = max(-ratio * a, -clip(ratio) * a)
            row.append(min(value, -dual * a) if dual and a < 0 else value)
        rows.append(row)
    return rows


@pytest.mark.parametrize("aggregation", ["sample-mean", "token-mean", "constant"])
@pytest.mark.parametrize(("name", "dual"), [("grpo", None), ("grpo", 1.4), ("gspo", None), ("cispo", None), ("reinforce-plus-plus", None)])
def test_policy_loss(name: str, dual: float | None, aggregation: str) -> None:
    rows = token_pg(name, dual)
    want = {
        "sample-mean": sum(sum(r) / len(r) for r in rows) / 4,
        "token-mean": sum(map(sum, rows)) / 10,
        "constant": sum(map(sum, rows)) / (8 * 4),
    }[aggregation]
    settings = algorithm(name, loss_aggregation=aggregation, clip={"dual": dual})
    assert compute_loss(batch(), settings, Correction(), DENOMINATORS).loss.item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(("name", "want"), [("grpo", "sample-mean"), ("dr-grpo", "constant")])
def test_default_aggregation(name: str, want: str) -> None:
    default, named = algorithm(name), algorithm(name, loss_aggregation=want)
    losses = [compute_loss(batch(), settings, Correction(), DENOMINATORS).loss for settings in (default, named)]
    assert losses[0] == losses[1]


def test_gradient_stops_where_the_clip_decides() -> None:
    tokens = batch()
    terms = compute_loss(tokens, algorithm(), Correction(), DENOMINATORS)
    (gradient,) = torch.autograd.grad(terms.loss, tokens.logp)
    # Ratios: 1.35 (A > 0: clipped), 1, 0.41 (A > 0: not clipped, the loss is larger unclipped); 1.82 (A < 0: not), 0.90 (not).
    assert terms.clipped.tolist() == [[1, 0, 0], [0, 0, 0]]
    want = [[0.0, -1.5 / 3 / 4, -1.5 * math.exp(-0.9) / 3 / 4], [0.7 * math.exp(0.6) / 2 / 4, 0.7 * math.exp(-0.1) / 2 / 4, 0.0]]
    torch.testing.assert_close(gradient, torch.tensor(want))


def test_cispo_keeps_the_gradient_of_clipped_tokens() -> None:
    tokens = batch()
    terms = compute_loss(tokens, algorithm("cispo"), Correction(), DENOMINATORS)
    (gradient,) = torch.autograd.grad(terms.loss, tokens.logp)
    assert gradient[0, 0].item() == pytest.approx(-1.28 * 1.5 / 3 / 4, rel=1e-5)
    assert terms.clipped.tolist() == [[1, 0, 1], [1, 0, 0]]


def test_gspo_gradient_is_the_sequences() -> None:
    tokens = batch()
    (gradient,) = torch.autograd.grad(compute_loss(tokens, algorithm("gspo"), Correction(), DENOMINATORS).loss, tokens.logp)
    ratio = math.exp((0.6 - 0.1) / 2)
    assert gradient[1, :2].tolist() == pytest.approx([0.7 * ratio / 2 / 4] * 2, rel=1e-5)
    assert gradient[1, 2] == 0


@pytest.mark.parametrize(
    ("estimator", "formula"),
    [
        ("k1", lambda d: d),
        ("k2", lambda d: d * d / 2),
        ("k3", lambda d: math.exp(-d) - 1 + d),
        ("low-var-kl", lambda d: min(10.0, math.exp(-d) - 1 + d)),
    ],
)
def test_kl_estimators(estimator: Any, formula: Any) -> None:
    pairs = [(-1.0, -1.0), (-0.5, -2.0), (-3.0, -0.5), (-9.0, -1.0)]
    got = kl_estimate(torch.tensor([p for p, _ in pairs]), torch.tensor([r for _, r in pairs]), estimator)
    assert got.tolist() == pytest.approx([formula(p - r) for p, r in pairs], rel=1e-5, abs=1e-6)
    policy, reference = (np.array(row, np.float32) for row in zip(*pairs, strict=True))
    assert kl_per_token(policy, reference, estimator).tolist() == pytest.approx([formula(p - r) for p, r in pairs], abs=1e-9)


def test_kl_and_entropy_terms() -> None:
    settings = algorithm(kl={"coefficient": 0.3, "estimator": "k2"}, entropy_coefficient=0.1)
    with_terms = compute_loss(batch(reference=True), settings, Correction(), DENOMINATORS).loss.item()
    plain = compute_loss(batch(), algorithm(), Correction(), DENOMINATORS).loss.item()
    kl = sum(sum((l - r) ** 2 / 2 for l, r in zip(a, b, strict=True)) / len(a) for a, b in zip(L, REF, strict=True)) / 4  # noqa: E741
    entropy = sum(sum(r) / len(r) for r in H) / 4
    assert with_terms == pytest.approx(plain + 0.3 * kl - 0.1 * entropy, rel=1e-5)


def test_kl_in_the_reward_is_measured_but_not_in_the_loss() -> None:
    settings = algorithm(kl={"coefficient": 0.3, "placement": "reward"})
    terms = compute_loss(batch(reference=True), settings, Correction(), DENOMINATORS)
    assert terms.loss == compute_loss(batch(), algorithm(), Correction(), DENOMINATORS).loss
    assert terms.kl is not None


RATIO = [[math.exp(o - f) for o, f in zip(a, b, strict=True)] for a, b in zip(O, F, strict=True)]  # 0.905 2.718 1 | 1 7.389
SEQUENCE = [math.exp(-0.1 + 1.0), math.exp(2.0)]
GEOMETRIC = [math.exp(0.3), math.exp(1.0)]


@pytest.mark.parametrize(
    ("correction", "want"),
    [
        pytest.param({"type": "none"}, [[1, 1, 1], [1, 1]], id="none"),
        pytest.param({"type": "tis"}, [[RATIO[0][0], 2, 1], [1, 2]], id="tis"),
        pytest.param({"type": "tis", "low": 0.95}, [[0.95, 2, 1], [1, 2]], id="tis-low"),
        pytest.param({"type": "icepop", "low": 0.5, "high": 5}, [[*RATIO[0]], [1, 0]], id="icepop"),
        pytest.param({"type": "icepop", "low": 0.95, "high": 5}, [[0, RATIO[0][1], 1], [1, 0]], id="icepop-low"),
        pytest.param({"type": "mis", "mode": "truncate", "low": 0.95}, [[RATIO[0][0], 2, 1], [1, 2]], id="mis-truncate-ignores-low"),
        pytest.param({"type": "mis", "mode": "clip", "low": 0.95}, [[0.95, 2, 1], [1, 2]], id="mis-clip"),
        pytest.param({"type": "mis", "mode": "mask"}, [[RATIO[0][0], 0, 1], [1, 0]], id="mis-mask"),
        pytest.param({"type": "mis", "level": "sequence", "high": 3}, [[SEQUENCE[0]] * 3, [3] * 2], id="mis-sequence"),
        pytest.param({"type": "mis", "level": "geometric"}, [[GEOMETRIC[0]] * 3, [2] * 2], id="mis-geometric"),
        pytest.param({"type": "mis", "level": "geometric", "mode": "mask"}, [[GEOMETRIC[0]] * 3, [0] * 2], id="mis-geometric-mask"),
        pytest.param({"type": "mis", "veto_threshold": 0.95}, [[0, 0, 0], [1, 2]], id="mis-veto"),
    ],
)
def test_correction_weights(correction: dict[str, Any], want: list[list[float]]) -> None:
    tokens = batch()
    weights = correction_weights(Correction.model_validate(correction), tokens.old, tokens.rollout, tokens.mask)
    torch.testing.assert_close(weights.weight * tokens.mask, pad([[float(v) for v in row] for row in want]))
    plain = compute_loss(tokens, algorithm(), Correction(), DENOMINATORS)
    corrected = compute_loss(tokens, algorithm(), Correction.model_validate(correction), DENOMINATORS)
    torch.testing.assert_close(corrected.pg * tokens.mask, plain.pg * pad([[float(v) for v in row] for row in want]))


def test_correction_weights_are_detached_and_bounded() -> None:
    old = torch.tensor([[-1.0, 500.0]], requires_grad=True)
    weights = correction_weights(Correction(type="mis", high=1e30), old, torch.zeros(1, 2), torch.ones(1, 2))
    assert not weights.weight.requires_grad and weights.weight[0, 1].item() == pytest.approx(math.exp(20), rel=1e-5)


def test_changed_marks_truncated_tokens_only() -> None:
    tokens = batch()
    assert correction_weights(Correction(type="tis"), tokens.old, tokens.rollout, tokens.mask).changed.tolist() == [[0, 1, 0], [0, 1, 0]]


def test_diagnostics_are_token_means() -> None:
    tokens = batch(reference=True)
    terms = compute_loss(tokens, algorithm(), Correction(type="tis"), DENOMINATORS)
    got = means(dict(zip(TOKEN_SUMS, token_sums(tokens, terms).tolist(), strict=True)), tokens=5)
    d = [o - f for a, b in zip(O, F, strict=True) for o, f in zip(a, b, strict=True)]
    assert got["logprob_diff"] == pytest.approx(sum(map(abs, d)) / 5, rel=1e-5)
    assert got["k3"] == pytest.approx(sum(math.exp(v) - 1 - v for v in d) / 5, rel=1e-5)
    assert got["clip_fraction"] == pytest.approx(1 / 5)
    assert got["tis_clip_fraction"] == pytest.approx(2 / 5)
    assert got["entropy"] == pytest.approx(sum(map(sum, H)) / 5, rel=1e-5)
    assert got["ppl_train"] == pytest.approx(math.exp(-sum(map(sum, O)) / 5), rel=1e-5)
    assert got["ppl_ratio"] == pytest.approx(got["ppl_train"] / got["ppl_rollout"], rel=1e-5)


@pytest.mark.parametrize("broken", [math.nan, -math.inf], ids=["nan", "minus infinity"])
def test_mismatch_of_a_log_probability_that_is_no_number_is_none(broken: float) -> None:
    assert not mismatch_k3(torch.tensor([-1.0]), torch.tensor([broken])).isfinite().item()


def test_mismatch_k3_is_clamped() -> None:
    assert mismatch_k3(torch.tensor([1e4]), torch.tensor([0.0])).item() == pytest.approx(math.exp(20) - 21, rel=1e-5)
