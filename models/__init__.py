"""The models of tubelet: torch only, importable without the service."""
