"""See torchvision."""

from enum import Enum

from torchvision import __getattr__ as __getattr__


class InterpolationMode(Enum):
    """Names that defaults and tables of image processors are written with."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"
