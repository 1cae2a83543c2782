"""Methods that learn comparisons with a scalar head: reward and preference models."""
