"""The contract of lprl: what users write, what the operator tells the pods, what the pods tell the operator."""
