"""Penn Treebank tokens of captions, as the official COCO caption scorer counts them, without Java.

That scorer runs Stanford CoreNLP 3.4.1's PTBTokenizer with `-preserveLines -lowerCase` and drops a list of
punctuation. The rules below were found by giving that tokenizer texts and looking at what came back. What
seems wrong is kept too: brackets stay, as `-lrb-`, because only their upper-case spelling is on the list of
punctuation, and so does `!!!`, which is not on it.

Quotes, full stops, commas and single dashes are dropped in all their forms, so that no rule needs to tell
them apart: what no rule matches is dropped. Each caption is read alone; the official scorer lets the first
word of the next caption decide whether the full stop of a last initial belongs to it.
"""

import re
from collections.abc import Iterable, Iterator

# Keep their full stop.
ABBREVIATIONS = (
    # titles
    "adm atty attys brig capt cmdr col comdr cpl det dr drs ens esq gen gov govs hon insp jr lieut lt maj "
    "messrs mlle mme mr mrs ms msgr pfc ph pres prof profs pvt rep reps rev sen sens sfc sgt spc sr st ste "
    "supt treas "
    # months and days
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri "
    # states
    "ala ariz calif colo conn ct dak fla ga ind kan kans ky md mich minn mo mont neb nev okla penn tenn va "
    "vt wis wisc wyo "
    # companies
    "assn assoc bancorp bhd bros cie co corp cos inc intl ltd mfg natl plc ppte ppty pte ptes pty ptys sys "
    "univ "
    # streets and the rest
    "adj adv al alex asst ave bldg blvd cf dept elec est etc ext ft invt jos mt mtg rd rt seq sq tel vs wm"
).split()
ABBREVIATIONS_IF_CAPITALISED = "ark az del ill la mass miss ore pa tex wash".split()
ABBREVIATIONS_BEFORE_A_NUMBER = "art ca fig figs no nos op pp prop".split()
# Capitalised, they take its full stop from an initial before them: "plan B. The dog".
SENTENCE_STARTS = (
    "a about according after an as at but earlier he her here however if in it last many more now once one "
    "other our she since so some such that the their then there these they this we what when while yet you "
    r"mr\. ms\."
).split()
TWO_WORDS = "(can)(not) (gon)(na) (got)(ta) (lem)(me) (gim)(me) (wan)(na)".split()
WITH_APOSTROPHE = (
    "'em 'til 'cause o'er e'er ne'er ma'am s'mores hallowe'en ta'en wha'ever ev'ry c'est cap'n nat'l li'l "
    "d'ye d'you d'ya"
).split()

LETTER = r"[^\W\d_²³¹¼-¾⁰-₉⅐-↉①-⓿]"
# What goes on with a word: soft hyphens and marks too; `@` counts as a letter.
GOES_ON = rf"(?:{LETTER}|[\d@\u00ad\u02c2-\u02df\u0300-\u036f])"
WORD = rf"(?:{LETTER}|[\d@]){GOES_ON}*"
NAME = rf"{LETTER}{GOES_ON}*"
ASCII = r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"
NUMBER = r"\d+(?:[.,]\d+)*"
ENDS = rf"(?!{GOES_ON})"
APOSTROPHE = r"['’]"
HYPHEN = r"[-‐‑]"
INITIALS = rf"(?:{LETTER}\.)+"
ENDINGS = "(?:s|m|d|re|ve|ll)"
URL = r"[^\s<>\"|()]*[^\s<>\"|().,;:!?'-]"


def _one_of(words: Iterable[str]) -> str:
    return "(?i:" + "|".join(words).replace("'", APOSTROPHE) + ")"


def _one_capitalised_of(words: Iterable[str]) -> str:
    return "(?:" + "|".join(f"{word[0].upper()}(?i:{word[1:]})" for word in words) + ")"


# The longest match is the next token, the first of equally long ones. Groups are tokens of their own.
RULES = [
    re.compile(rule)
    for rule in (
        # Contractions: can not, ca n't, dog 's, rock 'n' roll, 't is, y' all, ol' man.
        *(rf"(?i:{word}){ENDS}(?!{APOSTROPHE}s)" for word in TWO_WORDS),
        rf"(?i:({LETTER}+)(n['’‘`]t)){ENDS}",
        rf"(?i:n['’‘`]t){ENDS}",
        rf"(?i:{APOSTROPHE}{ENDINGS}){ENDS}",
        rf"(?i:{APOSTROPHE}n(?:{APOSTROPHE}|{ENDS}))",
        rf"(?i:’(?:{ENDINGS}|n))",  # whatever follows: a quoted ’dog’ is 'd og
        rf"(?i:'t(?=(?:is|was)(?:{ENDS}|n't)))",
        rf"(?i:[djly]{APOSTROPHE}(?!{ENDINGS}{ENDS}))(?={LETTER})",
        rf"(?i:[dl]{APOSTROPHE}(?!{GOES_ON}))",
        rf"(?i:(?:ol|dunkin|somethin){APOSTROPHE}(?!{ENDINGS}{ENDS}))",
        # Apostrophes that stay in their word: o'clock, d'accord, qu'elle, 'em, the '90s, '65.
        rf"(?i:(?:(?:{WORD}-)*[dlno]|{LETTER}*qu){APOSTROPHE}{LETTER}{LETTER}+)(?:{HYPHEN}{WORD})*",
        rf"{_one_of(WITH_APOSTROPHE)}{ENDS}",
        r"(?i:c'mon)\b",
        rf"{APOSTROPHE}(?:[2-9]0[sS]|\d\d(?=\s|$))",
        # Words and what ties them: a_b, red-hot, 3.5-inch, U.S.-based, non-U.S., and/or, dog.jpg, a!b, AT&T.
        WORD,
        rf"(?:{WORD}|{NUMBER})(?:\.?{HYPHEN}{WORD}|_{WORD})+",
        rf"{INITIALS}{LETTER}?{HYPHEN}{WORD}",
        rf"(?:{WORD}|{INITIALS})-{INITIALS}",
        rf"{ASCII}(?:\\?/{ASCII})+",
        rf"{NAME}(?:\.{NAME})+(?:{HYPHEN}{WORD})*",
        rf"{LETTER}+(?:[!?]{LETTER}+)+",
        r"[A-Z]+(?:&[A-Z]+)+",
        r"(?:[Aa]nti|[Pp]ro)-",
        rf"{WORD}(?:[-_&]{WORD})*\.(?=[,:;])",  # dog., keeps its full stop
        r"[Cc]\+\+|[CcFf]#",
        # Abbreviations.
        rf"{INITIALS}(?!\s+{_one_capitalised_of(SENTENCE_STARTS)}(?!\S))",
        rf"{LETTER}\.{INITIALS}",
        r"(?i:ph\.d\.)",
        rf"{_one_of(ABBREVIATIONS)}\.",
        rf"{_one_capitalised_of(ABBREVIATIONS_IF_CAPITALISED)}\.",
        rf"{_one_of(ABBREVIATIONS_BEFORE_A_NUMBER)}\.(?=\s?\d)",
        # Numbers: -1,000.5, 10:30, .5, 1 1/2, (555) 123-4567, and the letters before a dollar.
        r"[-+]?(?:\d*(?:[.,:]\d+)+|\d+)",
        r"\d{1,4}[- \xa0]\d{1,4}\\?/\d{1,4}",
        r"\(\d{3}\)[ \xa0-]?\d{3}[- \xa0]\d{4}",
        r"(?:\+\d+[ \xa0-])?\d{2,4}[- \xa0]\d{3,4}[- \xa0]\d{3,5}",
        r"[A-Z]+\$",
        # The net: addresses, names, tags, smileys, entities.
        rf"https?://{URL}",
        rf"(?:[A-Za-z0-9][A-Za-z0-9-]*\.)+(?:com|net|org|edu)(?:/{URL})?",
        r"<?[\w.-]+@[\w-]+\.[^\s<>\"|()]*[^\s<>\"|().]>?",  # with what stands behind it, `me@there.org,`
        r"@[A-Za-z_]\w*",
        r"#[A-Za-z]+",
        r"</?[A-Za-z!][^<>]*>",
        r"[:;=]['-]?[()DPpd\][{@\\|](?![A-Za-z0-9])|:o\)|:O",
        r"\(?[\^><xXTo-]_[\^><xXTo-]\)?",
        r"&(?:amp|lt|gt|quot|apos|nbsp|mdash|ndash);|&#\d+;",
        # Runs and single symbols.
        r"[!?]{2,}|_{2,}|\*{2,}|#{2,}|-{2,}|\.{3}|''",
        r"[#$%&*+/<=>@\\^_|~()\[\]{}]",
        r"[\u00a1-\u00a9\u00ac-\u00b9\u00bc-\u00bf×÷]",
        r"[\u2016\u2017\u201a\u201e\u2020-\u2023\u2030-\u2038\u203b\u203e-\u2042\u2044]",
        r"[\u2070\u2074-\u207e\u2080-\u208e\u20a0\u20a4\u20ac\u2100-\u214d\u2153-\u215e]",
        r"[\u2190-\u2bff\u3001\u3002\uff01-\uff20]",
    )
]
# Tokens that are not spelt as they were found; empty: dropped.
SPELT = {
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"},
    **{"¢": "cents", "£": "#", "€": "$", "¤": "$", "₠": "$"},
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">"},
    **{f"’{ending}": f"'{ending}" for ending in ("s", "m", "d", "re", "ve", "ll")},
    **{"n’t": "n't", "n‘t": "n`t"},
    **dict.fromkeys(
        ["--", "---", "----", "...", "''", "&quot;", "&apos;", "&nbsp;", "&mdash;", "&ndash;"], ""
    ),
}
# Most words of a caption: only TWO_WORDS could match as much.
PLAIN = re.compile(r" *([A-Za-z]+)(?=[ ,]|$)")
JOINED = {re.sub("[()]", "", word) for word in TWO_WORDS}


def tokenize(text: str) -> list[str]:
    """Lower-case tokens without punctuation.

    `The dog's "red-hot" bone isn't here.` -> `the dog 's red-hot bone is n't here`. A number and its fraction
    are one token with a no-break space in it.
    """
    return [token for found in _matches(text) if (token := _spell(found))]


def _matches(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        plain = PLAIN.match(text, at)
        if plain and plain[1].lower() not in JOINED:
            at = plain.end()
            yield plain[1]
            continue
        matches = [match for rule in RULES if (match := rule.match(text, at))]
        longest = max(matches, key=re.Match.end, default=None)
        at = longest.end() if longest else at + 1
        if longest:
            yield from longest.groups() or (longest[0],)


def _spell(found: str) -> str:
    token = found.lower().replace("\u00ad", "").replace(" ", "\xa0")
    return SPELT.get(token, token.replace("(", "-lrb-").replace(")", "-rrb-"))
