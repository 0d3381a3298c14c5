"""Rollout and relevance as the papers write them: dense products of whole matrices, autograd in float64.

It shares no code with ``tubelet.models.explain``: it computes attention by itself, from a model's parameters.
S units in a window, t frames in a unit, L tokens, A heads, P patches.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.models.families.divided import Divided
from tubelet.models.families.factorised import Factorised
from tubelet.models.families.joint import Joint, MeanEncoder
from tubelet.models.video_model import VideoModel


@dataclass
class Layer:
    """The weights of one attention, by part (unit, frame or track): (A, Q, K) each, and where each part lies.

    ``places`` has the tokens of each part in the matrix of the window. A place of a class token that several
    frames share occurs in each of them.
    """

    weights: list[Tensor] = field(default_factory=list)
    places: list[Tensor] = field(default_factory=list)

    def matrix(self, size: int, parts: list[Tensor]) -> Tensor:
        """Lay parts (Q, K) on one matrix; a query that occurs in several parts is averaged over them."""
        matrix, times = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size)
        for part, place in zip(parts, self.places, strict=True):
            matrix.index_put_((place[:, None], place[None]), part, accumulate=True)
            times[place] += 1
        return matrix / times.clamp_min(1)[:, None]


class Reference:
    """A forward pass of a window that keeps all weights; the matrix of the window has all its tokens.

    Tokens are in the order of units; in a unit, class token first. The temporal class token comes last.
    """

    def __init__(self, model: VideoModel, window: Tensor) -> None:
        self.model: Any = copy.deepcopy(model).double().requires_grad_(True)
        self.layers: list[Layer] = []
        self.unit_layers = 0
        with torch.enable_grad():
            self.logits = self._classify(window)

    def _classify(self, window: Tensor) -> Tensor:
        model = self.model
        pixels = (window.double() / 255 - model.mean) / model.std
        tokens = self._patches(pixels)
        units = len(window)
        if isinstance(model, Divided):
            vectors = self._divided(tokens, units)
        else:
            encoder = model.spacetime if isinstance(model, Joint) else model.spatial
            vectors = self._encoder(encoder, tokens, units)
        self.units, self.tokens = units, self.tokens_per_unit * units
        self.unit_layers = len(self.layers)
        if not isinstance(model, Factorised):
            self.size = self.tokens
            return model.head(vectors).mean(dim=0)
        self.size = self.tokens + 1
        places = torch.cat((torch.tensor([self.tokens]), torch.arange(units) * self.tokens_per_unit))
        x = torch.cat((model.temporal.cls_token[0], vectors))[None] + model.temporal.pos_embed
        for block in model.temporal.blocks:
            layer = Layer()
            x = self._block(block, x, layer, [places])
            self.layers.append(layer)
        return model.head(model.temporal.norm(x)[0, 0])

    def _patches(self, pixels: Tensor) -> Tensor:
        """Convolve: (S, t, H, W, C) -> (S, steps, rows, columns, D)."""
        proj = self.model.patch_embed.proj
        s, t = pixels.shape[:2]
        if isinstance(proj, torch.nn.Conv3d):
            return proj(pixels.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        if isinstance(self.model, Divided):
            out = proj(pixels.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            return out.unflatten(0, (s, t))
        return proj(pixels.permute(0, 1, 4, 2, 3).flatten(1, 2)).permute(0, 2, 3, 1)[:, None]

    def _attend(self, attention: Any, x: Tensor, layer: Layer, places: list[Tensor]) -> Tensor:
        n, tokens, width = x.shape
        heads = attention.num_heads
        q, k, v = attention.qkv(x).reshape(n, tokens, 3, heads, -1).unbind(2)
        scores = torch.einsum("nqad,nkad->naqk", q, k) / (width // heads) ** 0.5
        each = []
        for part, place in zip(scores, places, strict=True):
            weights = part.softmax(dim=-1)
            weights.retain_grad()
            layer.weights.append(weights)
            layer.places.append(place)
            each.append(weights)
        return attention.proj(torch.einsum("naqk,nkad->nqad", torch.stack(each), v).flatten(2))

    def _mlp(self, block: Any, x: Tensor) -> Tensor:
        act = "tanh" if block.mlp.act == "gelu_tanh" else "none"
        return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x)), approximate=act))

    def _block(self, block: Any, x: Tensor, layer: Layer, places: list[Tensor]) -> Tensor:
        return self._mlp(block, x + self._attend(block.attn, block.norm1(x), layer, places))

    def _encoder(self, encoder: Any, patches: Tensor, units: int) -> Tensor:
        x = patches.flatten(1, 3)
        with_class = not isinstance(encoder, MeanEncoder)
        if with_class:
            x = torch.cat((encoder.cls_token.expand(units, -1, -1), x), dim=1)
        x = x + encoder.pos_embed
        self.tokens_per_unit = x.shape[1]
        places = list(torch.arange(units * x.shape[1]).view(units, -1))
        for block in encoder.blocks:
            layer = Layer()
            x = self._block(block, x, layer, places)
            self.layers.append(layer)
        return encoder.norm(x)[:, 0] if with_class else encoder.fc_norm(x.mean(dim=1))

    def _divided(self, patches: Tensor, units: int) -> Tensor:
        model = self.model
        x = patches.flatten(2, 3) + model.pos_embed[:, None, 1:] + model.time_embed[:, :, None]
        _, t, p, _ = x.shape
        cls = (model.cls_token + model.pos_embed[:, :1]).expand(units, -1, -1)
        self.tokens_per_unit = 1 + t * p
        first = torch.arange(units)[:, None, None] * self.tokens_per_unit
        grid = first + 1 + torch.arange(t * p).view(t, p)
        tracks = list(grid.transpose(1, 2).flatten(0, 1))
        frames = list(torch.cat((first.expand(-1, t, -1), grid), dim=2).flatten(0, 1))
        for block in model.blocks:
            over_time, over_space = Layer(), Layer()
            each = block.temporal_norm1(x).transpose(1, 2).flatten(0, 1)
            moved = block.temporal_fc(self._attend(block.temporal_attn, each, over_time, tracks))
            x = x + moved.unflatten(0, (units, p)).transpose(1, 2)
            each = torch.cat((cls[:, None].expand(-1, t, -1, -1), x), dim=2).flatten(0, 1)
            seen = self._attend(block.attn, block.norm1(each), over_space, frames).unflatten(0, (units, t))
            cls = self._mlp(block, cls + seen[:, :, 0].mean(dim=1, keepdim=True))
            x = self._mlp(block, x + seen[:, :, 1:])
            self.layers += [over_time, over_space]
        return model.norm(cls)[:, 0]

    def attention(self, layer: int, query: int, head: int | None = None) -> Tensor:
        """Return the row of one layer's weights: -> (size,)."""
        parts = [each.mean(0) if head is None else each[head] for each in self.layers[layer].weights]
        return self.layers[layer].matrix(self.size, parts)[query].detach()

    def rollout(self) -> Tensor:
        """Return the matrix of rollout, from the last layer's tokens to the first one's: (size, size)."""
        product = torch.eye(self.size, dtype=torch.float64)
        for layer in self.layers:
            weights = layer.matrix(self.size, [each.mean(0) for each in layer.weights]).detach()
            elsewhere = weights.sum(dim=1) == 0  # tokens that the layer leaves as they are
            product = (weights + elsewhere.diag() + torch.eye(self.size)) / 2 @ product
        return product

    def relevance(self, score: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the layers add to the identity: spatial layers, temporal layers; (size, size) each."""
        score.backward(retain_graph=True)
        products = []
        for layers in (self.layers[: self.unit_layers], self.layers[self.unit_layers :]):
            product = torch.eye(self.size, dtype=torch.float64)
            for layer in layers:
                parts = [
                    (each.grad * each).clamp_min(0).mean(0) for each in layer.weights if each.grad is not None
                ]
                assert len(parts) == len(layer.weights)
                product = product + layer.matrix(self.size, parts).detach() @ product
            products.append(product - torch.eye(self.size))
        for layer in self.layers:
            for each in layer.weights:
                each.grad = None
        return products[0], products[1]

    def class_tokens(self) -> Tensor:
        """Return where the class tokens of units are: -> (S,); empty in a model without them."""
        if isinstance(self.model, Joint) and isinstance(self.model.spacetime, MeanEncoder):
            return torch.empty(0, dtype=torch.int64)
        return torch.arange(self.units) * self.tokens_per_unit

    def start(self) -> Tensor:
        """Return how much of the window's logits each token accounts for at the end: -> (size,)."""
        start = torch.zeros(self.size, dtype=torch.float64)
        if isinstance(self.model, Factorised):
            start[-1] = 1
        elif len(self.class_tokens()):
            start[self.class_tokens()] = 1 / self.units
        else:
            start[:] = 1 / self.size
        return start
