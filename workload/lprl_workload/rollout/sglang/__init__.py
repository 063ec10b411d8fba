"""SGLang as a rollout engine: a server process beside the actor that owns it."""
