"""The transformer sizes of the literature: one table.

B and L: Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929, table 1.
Ti and S: Touvron et al., "Training data-efficient image transformers" (DeiT), arXiv 2012.12877, table 1.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variant:
    """The sizes of a transformer encoder."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int


VARIANTS = {
    "Ti": Variant(embed_dim=192, depth=12, num_heads=3, mlp_dim=768),
    "S": Variant(embed_dim=384, depth=12, num_heads=6, mlp_dim=1536),
    "B": Variant(embed_dim=768, depth=12, num_heads=12, mlp_dim=3072),
    "L": Variant(embed_dim=1024, depth=24, num_heads=16, mlp_dim=4096),
}
