"""The decoder's transformer: prompt tokens attend to the image and the image to the tokens (SAM, appendix A)."""

from __future__ import annotations

from torch import Tensor, nn

from sam2_ros.model.attention import Attention
from sam2_ros.model.layers import MLP


class TwoWayBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int, ffn_dim: int, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.self_attn = Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, num_heads, downsample=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, ffn_dim, dim)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, num_heads, downsample=2)

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        if self.is_first:  # the tokens still equal their position encoding: not added, and no shortcut
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            placed = tokens + token_pe
            tokens = tokens + self.self_attn(placed, placed, tokens)
        tokens = self.norm1(tokens)
        placed_image = image + image_pe
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, placed_image, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(placed_image, tokens + token_pe, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    def __init__(self, dim: int, num_heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, num_heads, ffn_dim, is_first) for is_first in (True, False))
        self.final_attn_token_to_image = Attention(dim, num_heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image_bnc: Tensor, image_pe_1nc: Tensor, tokens_bmc: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, N, dim) and tokens (B, M, dim) -> both, updated, as (tokens, image)."""
        tokens, image = tokens_bmc, image_bnc
        for layer in self.layers:
            tokens, image = layer(tokens, image, tokens_bmc, image_pe_1nc)
        attended = self.final_attn_token_to_image(tokens + tokens_bmc, image + image_pe_1nc, image)
        return self.norm_final_attn(tokens + attended), image
