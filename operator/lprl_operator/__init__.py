"""The operator: plans, renders, reconciles and reports LowPrecisionRLJobs."""
