"""Stubs of the protocol, generated from the .proto files beside them by .ci/generate-stubs."""
