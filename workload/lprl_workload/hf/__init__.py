"""Hugging Face models as checkpoints name them: building, reading folders, and weights addressed by checkpoint name."""
