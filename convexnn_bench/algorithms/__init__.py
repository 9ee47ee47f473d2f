"""What the solvers are made of: one room an algorithm, each with its own door."""
