"""What a model folder holds: one rule for which files and tensors are the model, held against its config.json; every part asks here."""
