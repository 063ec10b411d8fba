"""What a conversion does to a model's answers: both folders run over the same texts, layer by layer, and compared token by token."""
