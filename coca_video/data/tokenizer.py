"""A byte-level BPE tokenizer that is trained on a corpus and stored with the model."""

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer as BpeTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor

from coca_video.errors import InputError

PAD, BEGIN, END = 0, 1, 2
NUM_SPECIAL = 3


class Tokenizer:
    """Text <-> ids: BEGIN, the text's BPE tokens, END.

    The special ids lie before the BPE vocabulary and exist nowhere inside it, so that no text, not even
    "<pad>", can ever produce one. Every byte is a token: any text can be written, none is unknown.
    """

    def __init__(self, bpe: BpeTokenizer):
        self._bpe = bpe

    @classmethod
    def train(cls, corpus: Iterable[str], *, vocab_size: int) -> "Tokenizer":
        """Learns at most vocab_size ids (special ones included) from the corpus."""
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        if vocab_size < NUM_SPECIAL + len(alphabet):
            raise ValueError(f"vocab_size must be at least {NUM_SPECIAL + len(alphabet)}, got {vocab_size}")
        bpe = BpeTokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - NUM_SPECIAL, initial_alphabet=alphabet, show_progress=False
        )
        bpe.train_from_iterator(corpus, trainer)
        return cls(bpe)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        try:
            return cls(BpeTokenizer.from_str(Path(path).read_text(encoding="utf-8")))
        except Exception as error:  # the library raises bare Exception for a file it cannot read
            raise InputError(f"{path}: not a tokenizer file ({error})") from error

    def to_json(self) -> str:
        return self._bpe.to_str()

    @property
    def vocab_size(self) -> int:
        return NUM_SPECIAL + self._bpe.get_vocab_size()

    def encode(self, text: str, *, max_length: int) -> list[int]:
        """Ids of one text, cut to max_length with END kept."""
        if max_length < 2:
            raise ValueError(f"max_length must be at least 2, got {max_length}")
        ids = [NUM_SPECIAL + i for i in self._bpe.encode(text.encode("utf-8", "replace").decode()).ids]
        return [BEGIN, *ids[: max_length - 2], END]

    def encode_batch(self, texts: list[str], *, max_length: int) -> tuple[Tensor, Tensor]:
        """Texts -> ids 'b l' and mask bool 'b l' (True = real), l being the longest text's length."""
        rows = [self.encode(text, max_length=max_length) for text in texts]
        ids = torch.full((len(rows), max(map(len, rows))), PAD)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return ids, ids != PAD

    def decode(self, ids: Iterable[int]) -> str:
        """The text up to END; special ids are dropped."""
        tokens = []
        for i in map(int, ids):
            if i == END:
                break
            if i >= NUM_SPECIAL:
                tokens.append(i - NUM_SPECIAL)
        return self._bpe.decode(tokens)
