"""What the routed experts of every format have in common: their runner is a loop over the experts that got tokens."""

from typing import Any

from sglang.srt.layers.moe.token_dispatcher import StandardCombineInput
from torch import Tensor

from lprl_sglang_cpu.arithmetic import Weights, experts


class LoopedExperts:
    """A method of SGLang's FusedMoE that needs no kernels. Weights stay as the checkpoint has them, so a reload is a first load."""

    moe_runner_config: Any = None

    def process_weights_after_loading(self, layer: Any) -> None:
        """Nothing: what was loaded is what is computed with."""

    def restore_weights_before_loading(self, layer: Any) -> None:
        """Nothing."""

    def create_moe_runner(self, layer: Any, moe_runner_config: Any) -> None:
        """Keep the settings; raises ValueError for those of other models."""
        if moe_runner_config.activation != "silu" or moe_runner_config.apply_router_weight_on_input:
            raise ValueError("lprl-cpu: experts are SiLU-gated and weighted at their output; this model's are not")
        self.moe_runner_config = moe_runner_config

    def combined(self, dispatched: Any, weights: Weights, group: int | None) -> Any:
        """Return what SGLang's dispatcher takes back."""
        topk = dispatched.topk_output
        out: Tensor = experts(dispatched.hidden_states, topk.topk_ids, topk.topk_weights, weights, group)
        return StandardCombineInput(hidden_states=out)
