"""Models on disk: folders with weights, labels, specification and fingerprint."""
