"""Read checkpoint files as tensors by name. A file that contains anything but tensors is rejected, and no code in it
runs.
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from pathlib import Path

import torch
from torch import Tensor

from sam2_ros.model.huggingface import is_huggingface, official_names
from sam2_ros.model.repvit import fold_batch_norms, has_batch_norms
from sam2_ros.regular_files import NotRegularFileError, check_regular_file

# Weight files in a folder saved by `transformers`, in order of preference.
_FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Other content that is often found under a checkpoint's name, by its first bytes.
_OTHER_FILES = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull`",
    b"<": "a web page or XML: was the download refused?",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"\x1f\x8b": "gzip data: unpack it first",
}
_HASH_BLOCK_BYTES = 1 << 20
_LARGEST_INDEX_BYTES = 64 << 20
_LARGEST_BYTES = 16 << 30  # SAM 2.1 large has 0.9 GB; a training state has a few times as much


class CheckpointError(ValueError):
    """An unusable checkpoint; the message is one line with the path, what was expected and what was found."""


def read_state_dict(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their official names, on the CPU and in their stored types.

    EdgeTAM's batch norms are folded into the convolutions before them, in float32.

    Args:
        path: an official checkpoint of SAM 2, EdgeTAM or EfficientTAM (``{"model": state_dict}``), a plain state dict,
            either of them as safetensors, weights of ``transformers`` (Sam2Model, Sam2VideoModel, EdgeTamModel,
            EdgeTamVideoModel), or a folder that it saved.
        sha256: what the file's hash must be, in hexadecimal; it is compared before anything is read.

    Raises:
        CheckpointError: no such file, another hash, damaged, not a checkpoint, or more in it than tensors.
    """
    file = _weights_file(path)
    _check_file(file)
    if sha256 is not None:
        _check_hash(file, sha256)
    state = _read_shards(file) if file.suffix == ".json" else _read_file(file)
    if is_huggingface(state):
        try:
            state = official_names(state)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error
        except RuntimeError as error:
            raise CheckpointError(f"{path}: not a readable checkpoint, {_what_is_wrong(error)}") from error
    return fold_batch_norms(state) if has_batch_norms(state) else state


def _weights_file(path: Path) -> Path:
    try:
        is_folder = path.is_dir()
        if path.exists() and not is_folder:
            return path
        found = [path / name for name in _FOLDER_FILES if (path / name).exists()]
    except OSError as error:  # a name that is too long, or a folder without read permission
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if not is_folder:
        raise CheckpointError(f"{path}: no such file; expected a SAM 2 checkpoint (.pt or .safetensors)")
    if not found:
        raise CheckpointError(f"{path} is a folder without weights; expected one of {', '.join(_FOLDER_FILES)}")
    return found[0]


def _check_file(file: Path) -> None:
    """Check kind and size before the file is opened: opening a FIFO waits for ever, and a device may have no end."""
    try:
        check_regular_file(file, _LARGEST_BYTES)
    except NotRegularFileError as error:
        raise CheckpointError(f"{error}; expected a SAM 2 checkpoint") from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error


def _check_hash(file: Path, sha256: str) -> None:
    expected = sha256.strip().lower()
    if len(expected) != 64 or not set(expected) <= set(string.hexdigits):
        raise CheckpointError(f"sha256 must be 64 hexadecimal digits, got {sha256!r}")
    if file.suffix == ".json":
        raise CheckpointError(f"{file}: the weights are spread over several files, so one sha256 cannot vouch for them")
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while block := stream.read(_HASH_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
    if digest.hexdigest() != expected:
        raise CheckpointError(f"{file} has another sha256: expected {expected}, found {digest.hexdigest()}")


def _read_shards(index: Path) -> dict[str, Tensor]:
    """All files that an index of ``transformers`` lists."""
    try:
        check_regular_file(index, _LARGEST_INDEX_BYTES)
        names_by_key: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in names_by_key.values()})
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index}: not a readable index of weights ({_first_line(error)})") from error
    state: dict[str, Tensor] = {}
    for name in names:
        if not re.fullmatch(r"[\w.-]+\.(safetensors|bin)", name):  # an index must not refer outside of its folder
            raise CheckpointError(f"{index}: expected the names of files beside it, found {name!r}")
        shard = _read_file(_weights_file(index.parent / name))
        if twice := sorted(shard.keys() & state.keys()):
            raise CheckpointError(
                f"{index}: {twice[0][:80]!r} is in {name} and in a file before it; expected each tensor once"
            )
        state |= shard
    return state


def _read_file(file: Path) -> dict[str, Tensor]:
    _check_file(file)
    try:
        with file.open("rb") as stream:
            start = stream.read(32)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
    is_safetensors = _is_safetensors(file, start)
    kind = next((kind for first, kind in _OTHER_FILES.items() if start.startswith(first)), None)
    if not start or (kind and not is_safetensors):
        raise CheckpointError(f"{file}: expected a SAM 2 checkpoint, found {kind or 'an empty file'}")
    try:
        content = _read_safetensors(file) if is_safetensors else _read_torch(file)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can raise any error anywhere in a reader
        raise CheckpointError(f"{file}: not a readable checkpoint, {_what_is_wrong(error)}") from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(map(_is_entry, state.items())):
        raise CheckpointError(
            f'{file}: expected {{"model": state_dict}} or a state dict of tensors, found other content'
        )
    return state


def _is_safetensors(file: Path, start: bytes) -> bool:
    """Whether the content is safetensors: 8 bytes with the header's length, then a JSON object; any suffix."""
    header_bytes = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and header_bytes < file.stat().st_size


def _read_torch(file: Path) -> object:
    # weights_only rejects a pickle that would run code. A stream, because torch goes by the suffix of a path.
    with file.open("rb") as stream:
        return torch.load(stream, map_location="cpu", weights_only=True)


def _read_safetensors(file: Path) -> object:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(f"{file}: reading this format needs safetensors: pip install safetensors") from error
    return load_file(file)


def _is_entry(item: tuple[object, object]) -> bool:
    name, tensor = item
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        return False
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_nested:
        return False
    # A tensor can claim any number of elements over a few stored values, and processing them would never end.
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _what_is_wrong(error: Exception) -> str:
    text = str(error)
    if foreign := re.search(r"(?:global|class):? (?:global )?([\w.]+\w)", text, re.IGNORECASE):
        # Not torch's message, which explains how to load such a file anyway.
        return (
            f"it holds {foreign[1]}, which is no tensor and could run code; nothing was run. If you trust its source, "
            "save its state dict alone and load that"
        )
    if "weights_only" in text or "Weights only" in text:
        return "it is damaged or no state dict of tensors"
    return f"it is damaged or of another kind ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
