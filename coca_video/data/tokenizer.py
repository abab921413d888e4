"""Text <-> ids: what all tokenizers share, and the byte-level BPE that is trained on a corpus.

A tokenizer is stored with its model as a tokenizer.json, the format of the `tokenizers` library.
"""

import functools
import json
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer as BpeTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor

from coca_video.errors import InputError


class Tokenizer:
    """Text <-> ids: `begin`, the text's BPE tokens, `end`. This class itself is the one trained on a corpus.

    The special ids lie before the BPE vocabulary and exist nowhere inside it, so that no text, not even
    "<pad>", can ever produce one. Every byte is a token: any text can be written, none is unknown.

    definition: the BPE and what surrounds it, as the text of a tokenizer.json.
    """

    pad, begin, end = 0, 1, 2
    num_special = 3
    first_id = 3  # of the BPE's tokens

    def __init__(self, definition: str):
        self._bpe = BpeTokenizer.from_str(definition)

    @staticmethod
    def train(corpus: Iterable[str], *, vocab_size: int) -> "Tokenizer":
        """Learns at most vocab_size ids (special ones included) from the corpus."""
        alphabet, num_special = pre_tokenizers.ByteLevel.alphabet(), Tokenizer.num_special
        if vocab_size < num_special + len(alphabet):
            raise ValueError(f"vocab_size must be at least {num_special + len(alphabet)}, got {vocab_size}")
        bpe = BpeTokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - num_special, initial_alphabet=alphabet, show_progress=False
        )
        bpe.train_from_iterator(corpus, trainer)
        return Tokenizer(bpe.to_str())

    @staticmethod
    def load(path: Path) -> "Tokenizer":
        """The tokenizer of a tokenizer.json: CLIP's if its BPE marks the ends of words, else a trained one.

        A file of another name is one of CLIP's merges (`ClipTokenizer.from_file`).
        Raises InputError, naming the file, for one that cannot be read as either.
        """
        from coca_video.data.clip_tokenizer import END_OF_WORD, ClipTokenizer  # here, as it imports this file

        if Path(path).suffix != ".json":
            return ClipTokenizer.from_file(path)
        try:
            definition = Path(path).read_text(encoding="utf-8")
            model = json.loads(definition)["model"]
            is_clip = model["end_of_word_suffix"] == END_OF_WORD
            return ClipTokenizer.from_model(model) if is_clip else Tokenizer(definition)
        except Exception as error:  # the library raises bare Exception for a file it cannot read
            raise InputError(f"{path}: not a tokenizer file ({error})") from error

    def to_json(self) -> str:
        return self._bpe.to_str()

    @property
    def vocab_size(self) -> int:
        return self.num_special + self._bpe.get_vocab_size()

    def encode(self, text: str, *, max_length: int) -> list[int]:
        """Ids of one text, cut to max_length with `end` kept; the first cut of a process warns."""
        return self.encode_after("", text, max_length=max_length)[0]

    def encode_after(self, prompt: str, text: str, *, max_length: int) -> tuple[list[int], int]:
        """Ids of a prompt and what follows it, and how many of them, `begin` included, are the prompt's.

        They are joined by a space. What is too long is cut at the end of the prompt, so that of the answer to
        a question nothing is lost, then at that of the text.
        """
        if max_length < 2:
            raise ValueError(f"max_length must be at least 2, got {max_length}")
        before = self._tokens_of(prompt) if prompt else []
        after = self._tokens_of(f" {text}" if prompt else text) if text else []
        if len(before) + len(after) > max_length - 2:
            _warn_of_cut(max_length)
            after = after[: max_length - 2]
            before = before[: max_length - 2 - len(after)]
        return [self.begin, *before, *after, self.end], 1 + len(before)

    def encode_batch(self, texts: list[str], *, max_length: int) -> tuple[Tensor, Tensor]:
        """Texts -> ids 'b l' and mask bool 'b l' (True = real), l being the longest text's length."""
        return self.encode_prompted([""] * len(texts), texts, max_length=max_length)[:2]

    def encode_prompted(
        self, prompts: list[str], texts: list[str], *, max_length: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`encode_batch` of texts behind prompts, and which tokens are the prompts': bool 'b l'."""
        rows, lengths = zip(
            *(self.encode_after(*each, max_length=max_length) for each in zip(prompts, texts))
        )
        longest = max(map(len, rows))
        ids = torch.tensor([row + [self.pad] * (longest - len(row)) for row in rows])
        is_prompt = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
        return ids, ids != self.pad, is_prompt

    def _tokens_of(self, text: str) -> list[int]:
        return [self.first_id + token for token in self._bpe.encode(self._clean(text)).ids]

    def decode(self, ids: Iterable[int]) -> str:
        """The text up to `end`; special ids are dropped."""
        tokens, num_tokens = [], self._bpe.get_vocab_size()
        for i in map(int, ids):
            if i == self.end:
                break
            if 0 <= i - self.first_id < num_tokens:
                tokens.append(i - self.first_id)
        return self._bpe.decode(tokens)

    def _clean(self, text: str) -> str:
        """All of the text but lone surrogates, which no bytes can write."""
        return text.encode("utf-8", "replace").decode()


@functools.cache  # once in a process: the filters of `warnings` forget whenever someone changes them
def _warn_of_cut(max_length: int) -> None:
    warnings.warn(f"texts of more than {max_length} tokens are cut")
