"""The frozen values that the packages exchange; they import neither torch nor protos."""
