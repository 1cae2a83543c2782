"""A package of one's own to start from: what ``xpo new`` writes, as templates and the rules of names.

``templates/`` holds the source of every file; ``plugins/template`` in the repository is what comes of them for pairs.
"""
