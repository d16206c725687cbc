"""Models: what a named model is, its chat template, and (with the engine) how it runs."""
