"""The service: takes in a video, decodes it, classifies it, and answers over gRPC.

Imports go down only: cli > server > rpc | client > pipeline > ingest | decode | engine. README.md beside this
file explains one request, the packages and the words.
"""
