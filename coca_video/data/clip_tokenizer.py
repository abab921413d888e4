"""CLIP's BPE, which open_clip's checkpoints of CoCa use."""

import gzip
import html
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path

import ftfy

from coca_video.data.tokenizer import Tokenizer
from coca_video.errors import InputError

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"  # open_clip's name for it
NUM_MERGES = 48894  # that CLIP uses, the first of the NUM_LISTED in its vocabulary file
NUM_LISTED = 262144
END_OF_WORD = "</w>"
BYTE_SYMBOLS = [chr(i) for i in (*range(33, 127), *range(161, 173), *range(174, 324))]  # in the order of ids
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
# Words, single digits, runs of other signs. Case is ignored throughout, as in open_clip: thereby "'ſ" is
# an "'s", and U+0345, which has a letter as its other case, belongs nowhere.
WORDS = r"(?i)'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class ClipTokenizer(Tokenizer):
    """Text <-> ids as in Radford et al. 2021 (CLIP, section 2.4), equal to open_clip's but for two things.

    There "<start_of_text>" and "<end_of_text>" in a text become special ids; here they are words like others,
    as the special ids lie behind the BPE vocabulary. Letters and digits newer than the Unicode of
    `tokenizers` (about 15) are taken for signs, which splits them from older letters beside them.

    The padding id is also the token "!" inside a run of signs. `encode_batch` masks such a token as padding:
    open_clip does so too, and its checkpoints were trained that way.

    merges: CLIP's, pairs of symbols. Raises ValueError for another number of them.
    """

    begin, end = 49406, 49407
    num_special = 2
    first_id = 0

    def __init__(self, merges: list[list[str]]):
        found = sum(len(merge) == 2 for merge in merges)
        if not found == len(merges) == NUM_MERGES:
            raise ValueError(f"CLIP's BPE has {NUM_MERGES} merges of two, found {found}")
        super().__init__(_definition(merges))

    @staticmethod
    def from_model(model: dict) -> "ClipTokenizer":
        """From the "model" in a tokenizer.json; the rest of such a file, as its added tokens, is not used.

        Raises ValueError where the ids are not those that follow from the merges.
        """
        merges = [merge.split() if isinstance(merge, str) else merge for merge in model["merges"]]
        if any(model["vocab"].get(token) != i for i, token in enumerate(_tokens(merges))):
            raise ValueError("its ids are not in the order of its merges")
        return ClipTokenizer(merges)

    @staticmethod
    def from_file(path: Path) -> "ClipTokenizer":
        """From open_clip's bpe_simple_vocab_16e6.txt.gz, a merges.txt, or the tokenizer.json of a CLIP model.

        Raises InputError, naming the file, for anything else.
        """
        path = Path(path)
        if path.suffix == ".json":
            tokenizer = Tokenizer.load(path)
            if not isinstance(tokenizer, ClipTokenizer):
                raise InputError(f"{path}: is a tokenizer, but not CLIP's")
            return tokenizer
        try:
            return ClipTokenizer(_merges_of_text(path))
        except Exception as error:  # the library raises bare Exception for merges it cannot use
            raise InputError(f"{path}: not CLIP's vocabulary ({error})") from error

    def decode(self, ids: Iterable[int]) -> str:
        """The text up to `end`, in lower case; special ids are dropped."""
        return super().decode(ids).strip()

    def _clean(self, text: str) -> str:
        """As open_clip's clean="lower": text repaired, HTML unescaped twice, spaces joined, lower case."""
        text = _unescape(_unescape(ftfy.fix_text(text)))  # fix_text replaces lone surrogates
        return " ".join(text.split()).lower()


def find_clip_vocabulary() -> Path | None:
    """The vocabulary file inside an installed open_clip, which is not imported; None where there is none."""
    spec = importlib.util.find_spec("open_clip")
    folders = spec.submodule_search_locations if spec else None
    return next((path for folder in folders or () if (path := Path(folder, VOCABULARY)).exists()), None)


def _unescape(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:  # "&#999...;" with more digits than Python converts
        return text


def _merges_of_text(path: Path) -> list[list[str]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    merges = [line.split() for line in text.splitlines()[1:]]  # line 1 is a title
    return merges[:NUM_MERGES] if len(merges) == NUM_LISTED else merges


def _tokens(merges: list[list[str]]) -> list[str]:
    """All tokens in the order of their ids: bytes, bytes that end a word, merges."""
    return [*BYTE_SYMBOLS, *(symbol + END_OF_WORD for symbol in BYTE_SYMBOLS), *map("".join, merges)]


def _definition(merges: list[list[str]]) -> str:
    """CLIP's BPE and what surrounds it, as the text of a tokenizer.json; the cleaning comes before."""
    vocab = {token: i for i, token in enumerate(_tokens(merges))}
    split = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": True}
    spaces = {"type": "Replace", "pattern": {"String": END_OF_WORD}, "content": " "}
    definition = {
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "end_of_word_suffix": END_OF_WORD},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL]},
        "decoder": {"type": "Sequence", "decoders": [BYTE_LEVEL, spaces]},
    }
    return json.dumps(definition)
