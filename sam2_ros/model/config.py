"""All model sizes in one table. A version difference is a value here, chosen once when the network is built."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class HieraSpec:
    """A Hiera trunk (arXiv 2306.00989) as SAM 2 uses it: widths double at each of four stages, strides 4 to 32."""

    embed_dim: int
    num_heads: int
    stages: tuple[int, int, int, int]  # blocks per stage
    global_blocks: tuple[int, ...]  # indices of blocks that attend over the whole image
    window_sizes: tuple[int, int, int, int] = (8, 4, 14, 7)  # tokens, per stage
    background_grid: tuple[int, int] = (7, 7)  # tokens of the learned absolute position embedding


@dataclass(frozen=True)
class EfficientNetLiteSpec:
    """An EfficientNet-Lite0 trunk (arXiv 1905.11946, no squeeze-and-excite), strides 4 to 32; it has one size."""


@dataclass(frozen=True)
class RepViTSpec:
    """A RepViT-M1 trunk (arXiv 2307.09283), strides 4 to 32."""

    widths: tuple[int, int, int, int] = (48, 96, 192, 384)
    depths: tuple[int, int, int, int] = (2, 2, 14, 2)  # blocks per stage


@dataclass(frozen=True)
class VitSpec:
    """A plain vision transformer (arXiv 2203.16527): one map at stride 16."""

    embed_dim: int
    num_heads: int
    depth: int = 12
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)  # indices of blocks that attend over the whole image
    window: int = 14  # tokens along one side, in the other blocks
    position_grid: int = 14  # tokens along one side of the learned position embedding


@dataclass(frozen=True)
class PerceiverSpec:
    """EdgeTAM's spatial perceiver (arXiv 2501.07256): a frame's memory as latents in place of a map."""

    grid: int = 16  # squared: number of latents of the whole map, and of those of one window each
    depth: int = 2


@dataclass(frozen=True)
class PooledMemory:
    """Squares of memory tokens that are attended to as one (arXiv 2411.18933)."""

    side: int = 2  # tokens along one side of a square
    weight_in_keys: bool = False  # add the log weight of a square to its key instead of its score
    lone_map_whole: bool = True  # do not pool while there is only one memory


@dataclass(frozen=True)
class Approximations:
    """Options that save time and change the masks slightly, see docs/speed.md. The defaults are exact."""

    memory_pooling: int = 1  # N x N memory tokens are attended to as one (arXiv 2411.18933)
    recent_memories: int | None = None  # spatial memories of the frames before this one; None: as many as in training

    def __str__(self) -> str:
        fewer = "" if self.recent_memories is None else f", {self.recent_memories} recent memories"
        return f"memory pooled by {self.memory_pooling}{fewer}"


@dataclass(frozen=True)
class ModelConfig:
    """Everything that determines the shapes of one model. The defaults are those of every released SAM 2.1 size."""

    name: str
    trunk: HieraSpec | EfficientNetLiteSpec | RepViTSpec | VitSpec
    image_size: int = 1024  # px, side of the square model input; a multiple of ``size_step``
    d_model: int = 256
    memory_dim: int = 64
    memory_layers: int = 4
    memory_ffn_dim: int = 2048
    decoder_heads: int = 8
    decoder_ffn_dim: int = 2048
    iou_hidden_dim: int = 256
    num_spatial_memories: int = 7  # ``num_maskmem``: one conditioning slot and the frames before this one
    max_pointers: int = 16  # object pointers from t-1 .. t-15, beside those of conditioning frames
    max_conditioning_in_attention: int | None = None  # ``max_cond_frames_in_attn``, 2 or more; None = all kept ones
    pointer_time_encoding: bool = True  # 2.1: signed temporal encoding of object pointers
    no_object_memory_embed: bool = True  # 2.1: a learned embedding marks memories of absent objects
    # A found object is reported as visible where its presence logit is above this. The network's own memory goes by 0
    # as in the paper, so that an object that is doubtful for some frames is not forgotten.
    visible_above_logit: float = 0.0
    # The frames that a tracker's memory is made of where its user names none: one of ``tracking/rules``.
    memory_selection: str = "recent"
    fine_maps: bool = True  # the decoder uses strides 4 and 8 (``use_high_res_features_in_sam``)
    perceiver: PerceiverSpec | None = None  # None: memories are maps
    pooled_memory: PooledMemory | None = None  # used in training
    approximations: Approximations = Approximations()

    @property
    def feature_size(self) -> int:
        """Tokens along one side of the stride-16 feature map."""
        return self.image_size // 16

    @property
    def size_step(self) -> int:
        """px; ``image_size`` is a multiple of it."""
        return 32 if self.perceiver is None else 16 * self.perceiver.grid

    @property
    def memory_hw(self) -> tuple[int, int]:
        """Height and width of the grid of a frame's memory tokens."""
        if self.perceiver is not None:
            return 2 * self.perceiver.grid, self.perceiver.grid
        return self.feature_size, self.feature_size

    @property
    def memory_tokens(self) -> int:
        """Memory tokens of one frame, without pointers."""
        return self.memory_hw[0] * self.memory_hw[1]

    @property
    def pooled_keys(self) -> PooledMemory | None:
        """How memory attention pools its keys: as the approximations say, else as in training; None: no pooling."""
        if self.approximations.memory_pooling > 1:
            return PooledMemory(self.approximations.memory_pooling, lone_map_whole=False)
        return self.pooled_memory

    @property
    def tokens_per_pointer(self) -> int:
        """An object pointer of ``d_model`` values is split into this many memory tokens."""
        return self.d_model // self.memory_dim


_TRUNKS = {
    "tiny": HieraSpec(96, 1, (1, 2, 7, 2), (5, 7, 9)),
    "small": HieraSpec(96, 1, (1, 2, 11, 2), (7, 10, 13)),
    "base_plus": HieraSpec(112, 2, (2, 3, 16, 3), (12, 16, 20), background_grid=(14, 14)),
    "large": HieraSpec(144, 2, (2, 6, 36, 4), (23, 33, 43), window_sizes=(8, 4, 16, 8)),
}

_NANO = ModelConfig(
    name="nano",
    trunk=EfficientNetLiteSpec(),
    image_size=320,
    d_model=128,
    memory_layers=2,
    memory_ffn_dim=512,
    decoder_heads=4,
    decoder_ffn_dim=512,
    iou_hidden_dim=128,
    num_spatial_memories=4,
    max_pointers=8,
    # Trained on short clips: the age of an older pointer would be a position never seen in training.
    pointer_time_encoding=False,
    visible_above_logit=2.0,  # chosen on held-out clips, see the model card
    memory_selection="distractor",  # better on held-out clips, see docs/tracking.md
)

_EDGETAM = ModelConfig(
    name="edgetam",
    trunk=RepViTSpec(),
    # It was trained at 1024 px, which takes a CPU five times as long: too slow for a robot's camera. At 512 px it keeps
    # 80.1 of its 86.4 on DAVIS 2017 (docs/checkpoints.md).
    image_size=512,
    memory_layers=2,
    pointer_time_encoding=False,
    no_object_memory_embed=False,
    perceiver=PerceiverSpec(),
)


def _efficienttam(name: str, trunk: VitSpec, image_size: int = 1024, pooled: PooledMemory | None = None) -> ModelConfig:
    return ModelConfig(
        name=name,
        trunk=trunk,
        image_size=image_size,
        pointer_time_encoding=False,
        no_object_memory_embed=False,
        fine_maps=False,
        pooled_memory=pooled,
    )


def _efficienttams(name: str, trunk: VitSpec) -> list[ModelConfig]:
    """The variants of one trunk: their weights have the same shapes."""
    return [
        _efficienttam(name, trunk),
        _efficienttam(f"{name}_1", trunk, pooled=PooledMemory()),
        _efficienttam(f"{name}_2", trunk, pooled=PooledMemory(weight_in_keys=True)),
        _efficienttam(f"{name}_512x512", trunk, image_size=512),
    ]


MODELS: dict[str, ModelConfig] = {
    "nano": _NANO,
    "edgetam": _EDGETAM,
    **{
        config.name: config
        for name, trunk in (("efficienttam_ti", VitSpec(192, 3)), ("efficienttam_s", VitSpec(384, 6)))
        for config in _efficienttams(name, trunk)
    },
    **{f"sam2.1_hiera_{size}": ModelConfig(f"sam2.1_hiera_{size}", trunk) for size, trunk in _TRUNKS.items()},
    **{
        f"sam2_hiera_{size}": ModelConfig(
            f"sam2_hiera_{size}", trunk, pointer_time_encoding=False, no_object_memory_embed=False
        )
        for size, trunk in _TRUNKS.items()
    },
}


def model_config(name: str, image_size: int | None = None) -> ModelConfig:
    """The table's entry with this name, optionally at another input size.

    Args:
        name: a key of ``MODELS``.
        image_size: side of the square model input in px, a positive multiple of 32 (of 256 for EdgeTAM); None keeps the
            table's.

    Raises:
        ValueError: unknown name, or a size that the strides do not divide.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; expected one of: {', '.join(sorted(MODELS))}")
    config = MODELS[name]
    if image_size is None:
        return config
    if image_size <= 0 or image_size % config.size_step:
        step = config.size_step
        raise ValueError(f"image_size must be a positive multiple of {step} px for {name}, got {image_size}")
    return replace(config, image_size=image_size)


def approximate(config: ModelConfig, approximations: Approximations) -> ModelConfig:
    """The same model with approximations.

    Raises:
        ValueError: squares that do not divide the feature map, pooling in a model that pools its memories itself, or a
            number of memories that the model cannot attend to.
    """
    pooling, recent = approximations.memory_pooling, approximations.recent_memories
    if pooling > 1 and (config.perceiver is not None or config.pooled_memory is not None):
        raise ValueError(
            f"memory_pooling: expected 1 for {config.name}, which pools its memories itself, got {pooling}"
        )
    if pooling < 1 or config.feature_size % pooling:
        raise ValueError(
            f"memory_pooling: expected a divisor of {config.feature_size}, the side of {config.name}'s feature map at "
            f"{config.image_size} px, got {pooling}"
        )
    if recent is not None and not 1 <= recent < config.num_spatial_memories:
        raise ValueError(
            f"recent_memories: expected 1 to {config.num_spatial_memories - 1} for {config.name}, got {recent}"
        )
    return replace(config, approximations=approximations)
