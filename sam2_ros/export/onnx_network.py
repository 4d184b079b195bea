"""The network's functions on top of the exported graphs, so that our tracker runs on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam2_ros.export.graphs import INPUTS, Slots
from sam2_ros.model.prompt_encoder import EncodedPrompts, PointPrompts
from sam2_ros.model.sam2 import SAM2, ImageFeatures, MaskPrediction, MemoryTokens


class OnnxNetwork(SAM2):
    """A SAM2 whose expensive functions are ONNX graphs; a prediction has the chosen mask as its only candidate.

    Args:
        model: the network that was exported; its weights are used for the parts that are not in a graph.
        folder: written by ``export_onnx``.

    Raises:
        ImportError: ONNX Runtime is not installed.
    """

    def __init__(self, model: SAM2, folder: Path) -> None:
        super().__init__(model.config, model.sam_mask_decoder.fallback, model.binarize_prompted_masks)
        self.load_state_dict(model.state_dict())
        self.eval()
        import onnxruntime

        self._sessions = {
            name: onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
            for name in INPUTS
        }
        _, memories, *_, pointers, _, _ = self._sessions["memory_attention"].get_inputs()
        self._slots = Slots(memories.shape[0], pointers.shape[0])

    def encode_image(self, images_bchw: Tensor) -> ImageFeatures:
        top, stride8, stride4, _ = self._run("image_encoder", images_bchw)
        return ImageFeatures(top, stride8, stride4)

    def attend_to_memory(self, features: ImageFeatures, memory: MemoryTokens) -> Tensor:
        rows = range(memory.tokens_bmc.shape[0])
        return torch.cat([self._attend(features.top_bchw[:1], memory, row) for row in rows])

    def _attend(self, top: Tensor, memory: MemoryTokens, row: int) -> Tensor:
        config, slots, ages = self.config, memory.slots[row], memory.ages[row]
        if len(slots) > self._slots.memories or len(ages) > self._slots.pointers:
            raise ValueError(
                f"the graph has room for {self._slots.memories} memories and {self._slots.pointers} pointers, the "
                f"object has {len(slots)} and {len(ages)}: export with more conditioning frames"
            )
        tokens_mc = memory.tokens_bmc[row]
        placed = tokens_mc.shape[0] - memory.num_pointer_tokens
        memories = tokens_mc[:placed].unflatten(0, (len(slots), *config.memory_hw)).permute(0, 3, 1, 2)
        pointers = tokens_mc[placed:].reshape(len(ages), config.d_model)
        return self._run(
            "memory_attention",
            top,
            _filled(memories, self._slots.memories),
            _filled(torch.tensor(slots), self._slots.memories),
            torch.arange(self._slots.memories) < len(slots),
            _filled(pointers, self._slots.pointers),
            _filled(torch.tensor(ages, dtype=torch.float32), self._slots.pointers),
            torch.arange(self._slots.pointers) < len(ages),
        )[0]

    def decode_masks(
        self,
        conditioned_bchw: Tensor,
        features: ImageFeatures,
        points: PointPrompts | None = None,
        mask_logits_b1hw: Tensor | None = None,
        multimask: bool = True,
    ) -> MaskPrediction:
        rows = [
            self._decode(
                conditioned_bchw[row : row + 1],
                features,
                None if points is None else PointPrompts(points.xy_bn2[row : row + 1], points.labels_bn[row : row + 1]),
                None if mask_logits_b1hw is None else mask_logits_b1hw[row : row + 1],
                multimask,
            )
            for row in range(conditioned_bchw.shape[0])
        ]
        logits, pointer, score, iou = (torch.cat(values) for values in zip(*rows, strict=True))
        return MaskPrediction(logits, pointer, score, iou, candidates_bmhw=logits, candidate_ious_bm=iou[:, None])

    def decode_encoded(
        self, conditioned_bchw: Tensor, features: ImageFeatures, prompts: EncodedPrompts, multimask: bool
    ) -> MaskPrediction:
        raise NotImplementedError("the prompt encoder is inside the graph: call decode_masks")

    def _decode(
        self,
        conditioned: Tensor,
        features: ImageFeatures,
        points: PointPrompts | None,
        previous: Tensor | None,
        multimask: bool,
    ) -> tuple[Tensor, ...]:
        if points is None:
            points = PointPrompts(torch.zeros(1, 1, 2), torch.full((1, 1), -1))
        side = self.config.image_size // 4
        return self._run(
            "mask_decoder" if multimask else "mask_decoder_single",
            conditioned,
            features.stride8_bchw[:1],
            features.stride4_bchw[:1],
            points.xy_bn2,
            points.labels_bn,
            torch.zeros(1, 1, side, side) if previous is None else previous,
            torch.tensor([previous is not None]),
        )

    def prepare_mask(self, mask_b1hw: Tensor) -> tuple[Tensor, Tensor]:
        earlier, logits = zip(*(self._run("mask_prompt", mask) for mask in mask_b1hw.split(1)), strict=True)
        return torch.cat(earlier), torch.cat(logits)

    def encode_memory(
        self, features: ImageFeatures, logits_b1hw: Tensor, object_score_logits_b1: Tensor, prompted: bool | Tensor
    ) -> Tensor:
        flag = torch.as_tensor(prompted).reshape(1)
        rows = zip(logits_b1hw.split(1), object_score_logits_b1.split(1), strict=True)
        top = features.top_bchw[:1]
        return torch.cat([self._run("memory_encoder", top, logits, score, flag)[0] for logits, score in rows])

    def _run(self, graph: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        session: Any = self._sessions[graph]
        # The session lacks inputs that the graph does not need, such as the flag of a setting that is off.
        wanted = {value.name for value in session.get_inputs()}
        named = {n: np.ascontiguousarray(t.numpy()) for n, t in zip(INPUTS[graph], inputs, strict=True) if n in wanted}
        return tuple(torch.from_numpy(output) for output in session.run(None, named))


def _filled(values: Tensor, count: int) -> Tensor:
    """The values, padded with zeros to ``count`` rows."""
    return torch.cat((values, values.new_zeros(count - values.shape[0], *values.shape[1:])))
