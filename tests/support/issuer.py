"""An issuer of tokens (JWT) for tests: its keys, and tokens right and wrong."""

import json
from time import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://issuer.example", "tubelet"


class Issuer:
    """An issuer with one key for RS256 and one for ES256."""

    def __init__(self, suffix: str = "") -> None:
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.rsa_id, self.ec_id = f"rsa{suffix}", f"ec{suffix}"

    def jwks(self) -> bytes:
        """The set of public keys."""
        first = RSAAlgorithm.to_jwk(self.rsa.public_key(), as_dict=True)
        second = ECAlgorithm.to_jwk(self.ec.public_key(), as_dict=True)
        return json.dumps({"keys": [first | {"kid": self.rsa_id}, second | {"kid": self.ec_id}]}).encode()

    def claims(self, **others: Any) -> dict[str, Any]:
        """The claims of a token that is right, but for ``others``; None leaves a claim out."""
        right = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": time() + 300}
        return {key: value for key, value in (right | others).items() if value is not None}

    def token(self, **others: Any) -> str:
        """A token with these claims."""
        return jwt.encode(self.claims(**others), self.rsa, "RS256", {"kid": self.rsa_id})

    def ec_token(self) -> str:
        return jwt.encode(self.claims(), self.ec, "ES256", {"kid": self.ec_id})
