"""Generators of small real models and tasks, for demos and tests; the main path never imports it."""
