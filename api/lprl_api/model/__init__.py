"""What a model is: its shape, every tensor of its checkpoint, weight formats, config.json."""
