"""Feedback: completions sampled from a model, and what reward functions and reward models say about them."""
