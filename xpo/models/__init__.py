"""Models: loading, the layout of groups as model inputs, the one forward that scores them, and the reference."""
