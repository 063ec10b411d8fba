"""What follows from a spec: defaults, when an edit takes effect, what was trained, the run's folder."""
