"""One reinforcement-learning run, top to bottom; knows no backend and no Ray."""
