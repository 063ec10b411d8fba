"""Episodes of several turns: what the policy draws, what tools and environments answer, and how both become one sequence of tokens."""
