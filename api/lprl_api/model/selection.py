"""What is quantised together, for weights of a shape (planner) and tensors of a checkpoint (workload); what at all: `Format.quantises`."""

TOGETHER = (("q_proj", "k_proj", "v_proj"), ("q_a_proj", "kv_a_proj_with_mqa"), ("gate_proj", "up_proj"))
"""Modules (by their last names) an engine runs as one matrix: quantised together or not at all."""
