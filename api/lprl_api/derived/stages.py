"""How a pipeline cuts a model's layers into stages: for rules, planner and trainer alike."""


def stage_layers(layers: int, pipeline: int, last: int | None) -> tuple[int, ...] | None:
    """Return the layers of each pipeline stage, or None when they do not divide."""
    if pipeline == 1:
        return (layers,) if last in (None, layers) else None
    if last is None:
        return (layers // pipeline,) * pipeline if layers % pipeline == 0 else None
    rest = layers - last
    if rest < pipeline - 1 or rest % (pipeline - 1):
        return None
    return (*((rest // (pipeline - 1),) * (pipeline - 1)), last)
