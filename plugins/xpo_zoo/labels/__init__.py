"""Methods that learn from labels: one completion, desirable or not."""
