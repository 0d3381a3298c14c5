"""What a model looked at, in space and time: attention, rollout, relevance and occlusion."""
