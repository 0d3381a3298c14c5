"""Fast inference: number formats, packed layers for CPUs, CUDA graphs, memory."""
