"""Training data: source clips, their split by scene, simulated batches, rendered test clips."""
