"""Methods that learn from demonstrations: completions worth imitating."""
