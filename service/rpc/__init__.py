"""The gRPC interface: reads request streams, sends messages and statuses, reports health."""
