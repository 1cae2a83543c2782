"""Methods that learn from lists of scored completions."""
