"""The frozen values that stages exchange; they import neither torch nor protos."""
