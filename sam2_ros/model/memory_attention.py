"""The features of the current frame attend to memories (paper section 4, "Memory attention")."""

from __future__ import annotations

from torch import Tensor, nn

from sam2_ros.model.attention import RotaryAttention
from sam2_ros.model.config import ModelConfig
from sam2_ros.model.packed import Linear
from sam2_ros.model.pooled_memory import PooledRotaryAttention
from sam2_ros.model.spatial_perceiver import LatentRotaryAttention


def cross_attention(config: ModelConfig) -> RotaryAttention:
    """The cross-attention for the kind of memory that the network has."""
    if config.perceiver is not None:
        return LatentRotaryAttention(config, config.perceiver)
    pooled = config.pooled_keys
    return (
        RotaryAttention(config.d_model, 1, config.memory_dim)
        if pooled is None
        else PooledRotaryAttention(config, pooled)
    )


class MemoryAttentionLayer(nn.Module):
    """Pre-norm: self-attention, cross-attention to memory, feed-forward.

    The positions of queries enter through rotary tables alone; memories have their encoding in space and time added to
    the keys, not to the values.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.d_model
        self.self_attn = RotaryAttention(dim, 1)
        self.cross_attn_image = cross_attention(config)
        self.linear1 = Linear(dim, config.memory_ffn_dim)
        self.linear2 = Linear(config.memory_ffn_dim, dim)
        self.activation = nn.ReLU()
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(
        self,
        x_bnc: Tensor,
        memory_bmc: Tensor,
        placed_memory_bmc: Tensor,
        grid_hw: tuple[int, int],
        num_unplaced: int,
        valid_bm: Tensor | None,
    ) -> Tensor:
        dtype = placed_memory_bmc.dtype  # of the products; the residual stream stays in float32
        y = self.norm1(x_bnc).to(dtype)
        x_bnc = x_bnc + self.self_attn.forward_on_grid(y, y, y, grid_hw)
        y = self.norm2(x_bnc).to(dtype)
        x_bnc = x_bnc + self.cross_attn_image.forward_on_grid(
            y, placed_memory_bmc, memory_bmc, grid_hw, num_unplaced, valid_bm
        )
        return x_bnc + self.linear2(self.linear1(self.norm3(x_bnc).to(dtype), self.activation))


class MemoryAttention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MemoryAttentionLayer(config) for _ in range(config.memory_layers))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(
        self,
        features_bchw: Tensor,
        position_1chw: Tensor,
        memory_bmc: Tensor,
        memory_position_bmc: Tensor,
        num_pointer_tokens: int,
        valid_bm: Tensor | None = None,
    ) -> Tensor:
        """Condition stride-16 features on memory.

        Args:
            features_bchw: (B, d_model, h, w); batch 1 where all memories belong to objects of one image, for which the
                self-attention before the first cross-attention is then computed once.
            position_1chw: their sine position encoding, of which a tenth is added at the input.
            memory_bmc: (B, R * config.memory_tokens + num_pointer_tokens, memory_dim): R memories, then pointer tokens.
            memory_position_bmc: added to the keys; same shape, or batch 1.
            num_pointer_tokens: how many tokens at the end have no position in the image.
            valid_bm: (B, as many) bool: False for tokens that only fill a fixed number of
                slots; None: all count.

        Returns:
            (B, d_model, h, w).
        """
        grid_hw = features_bchw.shape[2], features_bchw.shape[3]
        first = self.layers[0]
        assert isinstance(first, MemoryAttentionLayer)
        dtype = first.linear1.weight.dtype
        x_bnc = (features_bchw + 0.1 * position_1chw).flatten(2).transpose(1, 2)
        placed_memory_bmc = (memory_bmc + memory_position_bmc).to(dtype)
        memory_bmc = memory_bmc.to(dtype)
        for layer in self.layers:
            x_bnc = layer(x_bnc, memory_bmc, placed_memory_bmc, grid_hw, num_pointer_tokens, valid_bm)
        return self.norm(x_bnc).transpose(1, 2).unflatten(2, grid_hw)
