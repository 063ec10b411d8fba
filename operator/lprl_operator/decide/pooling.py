"""Before an attempt: can the warm pools that tools name give a sandbox? No GPU is taken before; then it goes on by itself."""

from lprl_api.names import Condition, Reason
from lprl_operator.decide import attempts
from lprl_operator.decide.decision import LATER_S, Case, Decision, Finding


def pool_stage(case: Case) -> Decision | None:
    """Wait for the pools; None when all can give a sandbox, when none is named, and while an attempt runs, which waits by itself.

    Nor does a RayCluster wait that holds GPUs or may get them from a queue at any moment: pools are asked about before there is one,
    and while it rests because we say so.
    """
    pools = case.seen.pools
    if pools is None or not attempts.over(case) or any(not (c.held and c.suspended) for c in case.seen.clusters):
        return None
    named = {t.sandbox.warm_pool: place for place, t in reversed(list(enumerate(case.job.spec.episode.tools))) if t.sandbox is not None}
    told = [
        f"spec.episode.tools[{place}].sandbox.warmPool: SandboxWarmPool {pool}: {pools.get(pool, 'is being looked at')}"
        for pool, place in sorted(named.items(), key=lambda pair: pair[1])
        if pools.get(pool, "?")
    ]
    if not told:
        return None
    again = case.status.attempt > 0
    findings = (
        Finding(Condition.INSPECTED, "False", Reason.SANDBOX_POOL_NOT_READY, "; ".join(told)),
        Finding(Condition.PROGRESSING, "False", Reason.RESTARTING if again else Reason.NOT_STARTED, told[0] if again else ""),
    )
    return Decision(case.status, findings, (), LATER_S)
