"""A run over many videos: which ones, who answers, how far it is, what it keeps."""
