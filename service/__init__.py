"""The service: ``cli > server > rpc | client > pipeline > ingest | decode | engine``, and what they share."""
