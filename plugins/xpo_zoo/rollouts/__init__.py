"""Methods that learn from rollouts: completions sampled while training, with their rewards."""
