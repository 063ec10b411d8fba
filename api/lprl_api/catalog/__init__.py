"""What is known beforehand: accelerators, presets, images, what engines can serve."""
