"""What operator and pods tell each other: RunConfig, Progress, Status."""
