"""The parts of the network compiled with ``torch.compile``, for a few fixed shapes.

Compiled code is for one shape, and a recorded CUDA graph for fixed addresses. In a stream shapes change: memories fill
up over the first frames, objects come and go. So memories are padded to a fixed number of slots, with empty slots
masked, and objects run in batches of 1 or 4. Everything else runs uncompiled: prompts, and objects that were given
several conditioning frames. Nothing is compiled after ``warm_up``.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from sam2_ros.model.config import ModelConfig
from sam2_ros.model.prompt_encoder import EncodedPrompts, PointPrompts
from sam2_ros.model.sam2 import SAM2, ImageFeatures, MaskPrediction, MemoryTokens
from sam2_ros.tracking.memory_bank import BankPolicy
from sam2_ros.tracking.rules.memory_selection import bank_policy

_BATCHES = (1, 4)  # objects in one batch; more run in several batches
_SHAPES = 64  # compiled per part, over all networks of a process
_CONDITIONING_FRAMES = 1  # of an object, those apart that the tracker finds itself


@dataclass(frozen=True)
class FilledSlots:
    """Memories padded to a fixed number of slots."""

    tokens_bmc: Tensor  # (B, maps * h * w + pointer tokens, memory_dim); zeros in empty slots
    position_bmc: Tensor  # the same shape
    num_pointer_tokens: int
    valid_m: Tensor | None  # (maps * h * w + pointer tokens,) bool, False for empty slots; None: all are filled


@dataclass(frozen=True)
class Room:
    """Slots for the memories of one object: for all that it attends to with so many conditioning frames."""

    map_tokens: int
    pointer_tokens: int

    @classmethod
    def of(cls, config: ModelConfig, policy: BankPolicy, conditioning_frames: int) -> Room:
        maps = policy.reach + conditioning_frames
        pointers = policy.max_pointers - 1 + conditioning_frames
        return cls(maps * config.memory_tokens, pointers * config.tokens_per_pointer)


def rooms_of(config: ModelConfig) -> tuple[Room, ...]:
    """The smallest first: for an object with one conditioning frame and, where the tracker finds anchors, for those."""
    policy = bank_policy(config)
    counts = dict.fromkeys((_CONDITIONING_FRAMES, _CONDITIONING_FRAMES + policy.most_anchors))
    return tuple(Room.of(config, policy, count) for count in counts)


def fill_slots(memory: MemoryTokens, map_tokens: int, pointer_tokens: int) -> FilledSlots | None:
    """Memories padded to ``map_tokens`` tokens of maps and ``pointer_tokens`` of pointers; None if there are more."""
    num_pointers = memory.num_pointer_tokens
    placed = memory.tokens_bmc.shape[1] - num_pointers
    empty_maps, empty_pointers = map_tokens - placed, pointer_tokens - num_pointers
    if empty_maps < 0 or empty_pointers < 0:
        return None
    position_bmc = memory.position_bmc.expand_as(memory.tokens_bmc)
    if empty_maps == empty_pointers == 0:
        return FilledSlots(memory.tokens_bmc, position_bmc, pointer_tokens, None)

    def filled(x_bmc: Tensor) -> Tensor:
        maps, pointers = x_bmc[:, :placed], x_bmc[:, placed:]
        return torch.cat((F.pad(maps, (0, 0, 0, empty_maps)), F.pad(pointers, (0, 0, 0, empty_pointers))), dim=1)

    valid_m = filled(torch.ones_like(memory.tokens_bmc[:1, :, :1]))[0, :, 0] > 0
    return FilledSlots(filled(memory.tokens_bmc), filled(position_bmc), pointer_tokens, valid_m)


class CompiledNetwork(SAM2):
    """A SAM2 with compiled parts and otherwise the behaviour of the network that it is made from.

    Args:
        model: the network whose weights, device and types it shares.
        backend: of ``torch.compile``.
    """

    def __init__(self, model: SAM2, backend: str | Callable[..., Any] = "inductor") -> None:
        super().__init__(model.config, model.sam_mask_decoder.fallback, model.binarize_prompted_masks)
        self.load_state_dict(model.state_dict(), assign=True)
        self.eval()
        _allow_many_shapes()
        self._rooms = rooms_of(model.config)
        mode = "max-autotune" if self.no_mem_embed.device.type == "cuda" else None  # records CUDA graphs
        fits: dict[str, Callable[..., bool]] = {
            "image_encoder": lambda images_bchw, *_: images_bchw.shape[0] == 1,
            "memory_attention": self._has_filled_slots,
            "sam_mask_decoder": _is_unprompted,
            "memory_encoder": lambda features_bchw, _: features_bchw.shape[0] in _BATCHES,
        }
        for name, fits_shape in fits.items():
            _compile(self.get_submodule(name), fits_shape, backend, mode)

    def warm_up(self) -> None:
        """Compile everything that a stream needs."""
        config, device = self.config, self.no_mem_embed.device
        with torch.inference_mode(), warnings.catch_warnings():
            # The compiler ignores the cache of the rotary tables, which become constants of the compiled code.
            warnings.filterwarnings("ignore", message=".*functools.lru_cache.*", category=UserWarning)
            features = self.encode_image(torch.zeros(1, 3, config.image_size, config.image_size, device=device))
            # CUDA graphs: the first call warms up, the second records, the third and later ones replay.
            for batch in _BATCHES * (3 if device.type == "cuda" else 1):
                for room, empty in itertools.product(self._rooms, (0, config.tokens_per_pointer)):
                    pointers = room.pointer_tokens - empty  # with all slots filled, and with empty ones
                    tokens = torch.zeros(batch, room.map_tokens + pointers, config.memory_dim, device=device)
                    conditioned = self.attend_to_memory(features, MemoryTokens(tokens, tokens, pointers))
                found = self.decode_masks(conditioned, features.expand(batch))
                self.encode_memory(
                    features.expand(batch), found.logits_b1hw, found.object_score_logits_b1, prompted=False
                )

    def attend_to_memory(self, features: ImageFeatures, memory: MemoryTokens) -> Tensor:
        in_rooms = (fill_slots(memory, room.map_tokens, room.pointer_tokens) for room in self._rooms)
        filled = next((found for found in in_rooms if found is not None), None)
        if filled is None or features.top_bchw.shape[0] != 1:
            return super().attend_to_memory(features, memory)
        conditioned = [
            self.attend_to_tokens(
                features.top_bchw,
                filled.tokens_bmc[rows],
                filled.position_bmc[rows],
                filled.num_pointer_tokens,
                None if filled.valid_m is None else filled.valid_m.expand(len(rows), -1),
            )[:count]
            for rows, count in _batches(memory.tokens_bmc.shape[0])
        ]
        return torch.cat(conditioned)

    def decode_masks(
        self,
        conditioned_bchw: Tensor,
        features: ImageFeatures,
        points: PointPrompts | None = None,
        mask_logits_b1hw: Tensor | None = None,
        multimask: bool = True,
    ) -> MaskPrediction:
        if points is not None or mask_logits_b1hw is not None or not (multimask and _is_one_image(features)):
            return super().decode_masks(conditioned_bchw, features, points, mask_logits_b1hw, multimask)
        found = [
            (super(CompiledNetwork, self).decode_masks(conditioned_bchw[rows], _of_rows(features, rows)), count)
            for rows, count in _batches(conditioned_bchw.shape[0])
        ]
        return MaskPrediction(
            *(
                torch.cat([getattr(each, field.name)[:count] for each, count in found])
                for field in fields(MaskPrediction)
            )
        )

    def encode_memory(
        self, features: ImageFeatures, logits_b1hw: Tensor, object_score_logits_b1: Tensor, prompted: bool | Tensor
    ) -> Tensor:
        if not _is_one_image(features):
            return super().encode_memory(features, logits_b1hw, object_score_logits_b1, prompted)
        encoded = [
            super(CompiledNetwork, self).encode_memory(
                _of_rows(features, rows), logits_b1hw[rows], object_score_logits_b1[rows], prompted
            )[:count]
            for rows, count in _batches(logits_b1hw.shape[0])
        ]
        return torch.cat(encoded)

    def __deepcopy__(self, memo: dict[int, object]) -> CompiledNetwork:
        raise TypeError("a compiled network cannot be copied: copy the network that it was made from, and compile that")

    def _has_filled_slots(self, features_bchw: Tensor, _place: Tensor, memory_bmc: Tensor, *_: object) -> bool:
        fits = memory_bmc.shape[1] in (room.map_tokens + room.pointer_tokens for room in self._rooms)
        return fits and features_bchw.shape[0] == 1 and memory_bmc.shape[0] in _BATCHES


def compile_network(model: SAM2, backend: str | Callable[..., Any] = "inductor") -> CompiledNetwork:
    """A ``CompiledNetwork`` of a model, compiled and ready.

    Args:
        model, backend: see ``CompiledNetwork``.

    Raises:
        ValueError: it cannot be compiled here; the message gives the compiler's reason.
    """
    network = CompiledNetwork(model, backend)
    try:
        network.warm_up()
    except TorchDynamoException as error:
        reason = " ".join(str(error).split("\n\n")[0].split())
        raise ValueError(
            f"compile: PyTorch could not compile the model here ({reason}); install what it asks for (on a CPU a C++ "
            "compiler, such as g++), or run without compile"
        ) from error
    return network


def _is_unprompted(
    _image: Tensor, _place: Tensor, prompts: EncodedPrompts, _stride4: Tensor, _stride8: Tensor, multimask: bool
) -> bool:
    """Whether there is no prompt: then the tokens are one token expanded, and the dense map is one cell expanded."""
    is_nothing = prompts.tokens_bnc.stride(1) == 0 and prompts.dense_bchw.stride()[2:] == (0, 0)
    return is_nothing and multimask and prompts.tokens_bnc.shape[0] in _BATCHES


def _batches(count: int) -> Iterator[tuple[list[int], int]]:
    """Rows of each batch, padded by repeating the last row, and the number of rows that are not padding."""
    for start in range(0, count, _BATCHES[-1]):
        meant = min(count - start, _BATCHES[-1])
        size = next(size for size in _BATCHES if size >= meant)
        yield [min(row, count - 1) for row in range(start, start + size)], meant


def _is_one_image(features: ImageFeatures) -> bool:
    return features.top_bchw.shape[0] == 1 or features.top_bchw.stride(0) == 0


def _of_rows(features: ImageFeatures, rows: list[int]) -> ImageFeatures:
    """The features of one image, expanded to the given rows; ``features`` holds that image once per object."""
    # Not t[:1], which keeps an expanded tensor's stride of 0: with a batch of 1 that would be another shape to compile.
    one = (t[0][None] for t in (features.top_bchw, features.stride8_bchw, features.stride4_bchw))
    return ImageFeatures(*one).expand(len(rows))


def _allow_many_shapes() -> None:
    """Raise the compiler's limit of shapes per function: 8 for the whole process, of which one network needs 4."""
    config: Any = torch._dynamo.config
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # until torch 2.6
    setattr(config, name, max(_SHAPES, getattr(config, name)))


def _compile(part: nn.Module, fits: Callable[..., bool], backend: str | Callable[..., Any], mode: str | None) -> None:
    """Route calls of the part that fit to compiled code."""
    plain = part.forward
    compiled = torch.compile(plain, backend=backend, mode=mode, dynamic=False, fullgraph=True)
    compiled_for = torch.get_num_threads()

    def forward(*args: Any) -> Any:
        if not fits(*args):
            return plain(*args)
        threads = torch.get_num_threads()
        if threads != compiled_for:  # as beside a prefetched image: avoid recompiling
            torch.set_num_threads(compiled_for)
            try:
                return forward(*args)
            finally:
                torch.set_num_threads(threads)
        # The memory layout is part of a shape.
        args = tuple(each.contiguous() if isinstance(each, Tensor) else each for each in args)
        if not args[0].is_cuda:
            return compiled(*args)
        torch.compiler.cudagraph_mark_step_begin()
        return _cloned(compiled(*args))  # the next call overwrites this result

    part.forward = forward


def _cloned(result: Any) -> Any:
    if isinstance(result, Tensor):
        return result.clone()
    if is_dataclass(result) and not isinstance(result, type):
        return type(result)(*(_cloned(getattr(result, field.name)) for field in fields(result)))
    return tuple(_cloned(each) for each in result)
