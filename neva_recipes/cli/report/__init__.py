"""What the command says of runs: their results, curves, and what to do at their end."""
