"""How much of a model is trained: a head (probe), its temporal stage, or all of it."""
