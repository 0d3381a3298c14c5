"""Conversion of values to protos and of errors to gRPC statuses, and back, for the server and the client."""
