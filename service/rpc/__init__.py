"""The gRPC face: request streams in, messages and statuses out, health."""
