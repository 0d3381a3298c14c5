"""How a model computes fast on a device: number formats, packed layers, CUDA graphs."""
