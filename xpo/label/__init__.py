"""Labelling: prompts, or completions that are there already, become a preference data set.

Completions are sampled and judged through the very seam that training uses, so what a judge or a reward says here is
what it says there. ``xpo label`` is the command; see docs/label.md.
"""
