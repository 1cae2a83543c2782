"""Methods that learn from what is to be unlearned, beside what is to be kept."""
