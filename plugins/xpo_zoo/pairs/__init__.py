"""Methods that learn from pairs: a chosen and a rejected completion of one prompt."""
