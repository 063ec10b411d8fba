"""Stands in for torchvision where language models are served without images.

torchvision from a package registry is built for torch with CUDA and ends at its import beside a CPU build of torch ("operator
torchvision::nms does not exist"). SGLang and transformers import names of it whatever they serve, and call none of them for text.
"""

__version__ = "0.0.0"


class Absent:
    """What every name of the stub is: it can be imported and named, and says what it is when it is used."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise RuntimeError("torchvision is not installed here, only lprl-torchvision-stub: images are not served on this CPU build")


def __getattr__(name: str) -> type[Absent]:
    if name.startswith("__"):
        raise AttributeError(name)
    return Absent
