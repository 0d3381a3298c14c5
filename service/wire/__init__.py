"""Values to protos and back, errors to gRPC statuses: shared by the server and the client."""
