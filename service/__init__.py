"""The service of tubelet: the pipeline of one request, a stage a file or folder."""
