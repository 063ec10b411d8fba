"""Router correction biases: they steer which experts are chosen, are float32 everywhere and never trained here."""

from torch import Tensor, nn

from lprl_api.model.checkpoint_tensors import CORRECTION

NAME = CORRECTION.removeprefix(".")


def keep_correction(module: nn.Module) -> None:
    """Make a router's correction bias a float32 buffer, whatever its class makes of it; of other modules nothing is changed."""
    bias = getattr(module, NAME, None)
    if isinstance(bias, Tensor):
        module._parameters.pop(NAME, None)
        module._buffers[NAME] = bias.detach().float()
