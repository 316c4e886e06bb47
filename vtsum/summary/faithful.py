"""Whether a sentence says nothing but what the quotations say that it cites: the guard of whoever writes the text.

A sentence may leave out, and join; it may not add, swap or turn. Every word of it but articles and "and" must stand in
a quotation that it cites, in the same form, names as names, numbers as numbers, and in the same order. Between two
words of a clause it may leave out adverbs, adjectives behind an article, and, of what happened once, a phrase of where
or when before another one or at the end of the clause. Whoever begins in the middle of a clause, or goes from one
clause to another but from the last word of it to the first of the next, has changed who did what. A clause with a
negation or a limit ("not", "only", "without", "more") is taken whole, and a sentence that says something only on a
condition or in another's name ("if", "said", "perhaps", "hoped"), too; a question stays one. What is not English is
taken whole.

So some true sentences are refused; the quotation then stands in their place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from vtsum.enhance.speech.plain_words import FUNCTION_WORDS, word_set

FREE = word_set("a an the and")
ADVERBS = word_set("very really just quite also now today still here again")
OPENERS = word_set("so well now okay ok then today also yes here and but")  # before a clause begins
DETERMINERS = word_set("a an the this that these those my your his her its our their")
BEFORE_PHRASES = word_set(
    "in on at by from during after before near across around through behind beside among into onto to"
)
AT_ENDS = BEFORE_PHRASES - {"to", "into", "onto", "at", "by", "from"}
#: Adjectives that make a thing another: a former mayor is none.
TURNING = word_set(
    "former fake false toy model mock artificial imitation alleged supposed would-be near so-called vice deputy "
    "assistant ex future late unlikely possible potential virtual pseudo anti non half first last second third next "
    "only other wrong missing empty plastic painted imaginary fictional acting failed forged counterfeit"
)
#: Clauses with one of them are taken whole.
LIMITS = word_set(
    "not no never none nobody nothing nowhere neither nor without hardly barely scarcely rarely seldom only almost "
    "nearly few fewer less or either too enough cannot more most least than as all every everything everyone any "
    "anything anyone each both instead except stopped stop avoid avoided lack lacks lacked free short out"
)
#: Sentences with one of them are taken whole: what they tell holds on a condition, or in another's name, or not at all.
UNREAL = word_set(
    "if unless whether until till although though suppose supposed may might could would should ought perhaps maybe "
    "possibly probably allegedly reportedly supposedly apparently likely unlikely seem seems seemed appear appears "
    "appeared say says said saying tell tells told telling claim claims claimed claiming think thinks thought believe "
    "believes believed hope hopes hoped wish wishes wished want wants wanted plan plans planned try tries tried deny "
    "denies denied refuse refuses refused fail fails failed forget forgets forgot forgotten pretend pretends "
    "pretended imagine imagines imagined dream dreams dreamed dreamt joke joked joking myth rumour rumor rumoured lie "
    "lies lied doubt doubts doubted expect expects expected promise promises promised threaten threatens threatened "
    "ask asks asked wonder wonders wondered guess guesses guessed feel feels felt fear fears feared accuse accuses "
    "accused suspect suspects suspected argue argues argued suggest suggests suggested report reports reported "
    "according wrong false untrue impossible nobody neither ignore write writes wrote written read reads imply "
    "implies implied warn warns warned prevent prevents prevented instead lest were else otherwise rather once used"
)
NOUNS = word_set("plan plans report reports")  # behind an article they are no verbs, and May is a month
#: With one of them, or a word in -ed, a clause tells what happened once: where and when may be left out. What holds in
#: general ("bans smoking in bars") would hold for more without it.
PAST = word_set(
    "was were had did went came saw took gave made said told got knew thought found left felt brought held kept began "
    "ran wrote stood heard let meant set met paid sat spoke lay led read grew lost fell sent built understood drew "
    "broke spent cut rose drove bought wore chose ate bit blew caught fed fought flew forgot froze hid hit hurt rode "
    "rang sang sank sold shot shut slept stole struck swam taught threw woke won laid lent bent bred burnt dealt dug "
    "drank forgave"
)
_BE = word_set("is are am be been being has have do does can will shall")
JOINTS = word_set("but while whereas because since when where who whom whose which that")  # a clause begins with them
_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_TENS = ("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBERS = {
    **{word: str(n) for n, word in enumerate(_UNITS)},
    **{word: str(10 * n) for n, word in enumerate(_TENS, 3)},
}
_SHORT = {"can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not", "let's": "let us"}
_ENDINGS = (("n't", "not"), ("'re", "are"), ("'ve", "have"), ("'ll", "will"), ("'m", "am"))
_IS = word_set("it he she that there what who here where how")
_TOKEN = re.compile(r"\d+(?:[.,:/]\d+)*|[^\W\d_]+(?:['-][^\W\d_]+)*|[%$€£#@]|[,;:.!?()—–…]")
_QUOTED = re.compile("\u201c([^\u201c\u201d]*)\u201d")


@dataclass(frozen=True)
class _Word:
    text: str  # plain; a number in figures
    capital: bool


@dataclass(frozen=True)
class _Clause:
    """Words without the free ones, the joint before them ("", "," or "and"), and for each whether a determiner stands
    right before it."""

    words: tuple[_Word, ...]
    joint: str
    determined: tuple[bool, ...]


def is_faithful(sentence: str, quotations: Sequence[str]) -> bool:
    """Whether everything the sentence says is said by the quotations, as the module's head has it.

    Args:
        sentence: one, as somebody wrote it. quotations: the texts that it cites; those read on a screen in “ ”.
    """
    sources = [source for quotation in quotations for source in _sources(quotation)]
    chunks = _clauses(sentence, joints=False)
    if not chunks or not any(chunk.words for chunk in chunks) or sum(sentence.count(s) for s in ".!?") > 3:
        return False
    asks = sentence.rstrip().endswith("?")
    usable = [source for source in sources if source.asks == asks]
    # What comes after the first begins anew with a sentence's beginning: else it would be said of another.
    borne = {len(chunks)}  # from which chunk on the rest is said
    for at in range(len(chunks) - 1, 0, -1):
        if any(at + taken in borne for source in usable for taken in _runs(chunks[at:], source, 0)):
            borne.add(at)
    begins = [(source, start) for source in usable for start in range(1 if source.whole else len(source.clauses))]
    return any(taken in borne for source, start in begins for taken in _runs(chunks, source, start))


@dataclass(frozen=True)
class _Source:
    clauses: tuple[_Clause, ...]
    asks: bool
    whole: bool  # to be taken whole


@lru_cache(maxsize=512)
def _sources(quotation: str) -> tuple[_Source, ...]:
    found = []
    for text in _QUOTED.findall(quotation) or [quotation]:
        for part in re.split(r"(?<=[.!?…])\s+(?=[\"'“(]?[A-Z0-9])", text):
            clauses = tuple(clause for clause in _clauses(part) if clause.words)
            if clauses:
                whole = any(map(_is_unreal, clauses)) or not _is_english(part)
                found.append(_Source(clauses, part.rstrip().endswith("?"), whole))
    return tuple(found)


def _is_unreal(clause: _Clause) -> bool:
    for i, (word, determined) in enumerate(zip(clause.words, clause.determined, strict=True)):
        named = (determined and word.text in NOUNS) or (i > 0 and word.capital and word.text == "may")
        if word.text in UNREAL and not named:
            return True
    return False


def _is_english(text: str) -> bool:
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text.lower().replace("\u2019", "'"))
    return all(ord(c) < 0x250 for c in text if c.isalpha()) and (
        len(words) < 8 or 5 * sum(word in FUNCTION_WORDS for word in words) >= len(words)
    )


def _clauses(text: str, joints: bool = True) -> list[_Clause]:
    """A text's clauses: parted at signs and "and", and before words of JOINTS."""
    found: list[_Clause] = []
    words: list[_Word] = []
    determined: list[bool] = []
    joint, before = "", ""
    for token in _TOKEN.findall(text.replace("\u2019", "'")):
        lower = token.lower()
        for word in _expanded(lower):
            starts = joints and word in JOINTS
            if word in ",;:.!?()—–…" or word == "and" or starts:
                if words:
                    found.append(_Clause(tuple(words), joint, tuple(determined)))
                    words, determined, joint = [], [], ""
                if not starts:
                    joint = "and" if word == "and" or joint == "and" else "or" if joint == "or" else ","
                    before = ""
                    continue
            if word not in FREE:
                # What begins a sentence may be a name or not: as a source's it counts as one, as a writer's not.
                capital = token[0].isupper() and (joints or bool(words) or bool(found) or token[1:].isupper())
                words.append(_Word(word, capital))
                determined.append(before in DETERMINERS)
            before = word
    if words:
        found.append(_Clause(tuple(words), joint, tuple(determined)))
    return found


def _expanded(word: str) -> list[str]:
    if word in _SHORT:
        return _SHORT[word].split()
    for ending, full in _ENDINGS:
        if word.endswith(ending) and len(word) > len(ending):
            return [word[: -len(ending)], full]
    if word.endswith("'s") and word[:-2] in _IS:
        return [word[:-2], "is"]
    if word[0].isdigit():
        return [re.sub(r",(?=\d{3})", "", word)]
    return ["percent" if word == "%" else _NUMBERS.get(word, word)]


def _runs(chunks: Sequence[_Clause], source: _Source, start: int) -> list[int]:
    """How many of the chunks, from the first on, are said by clauses side by side, from clause `start` on."""
    found = []
    wanted: list[tuple[_Word, str]] = []  # words, and the joint before each that begins a chunk
    for taken, chunk in enumerate(chunks, 1):
        wanted += [(word, chunk.joint if i == 0 and taken > 1 else "") for i, word in enumerate(chunk.words)]
        ends = _ends(wanted, source, start)
        if ends and (not source.whole or len(source.clauses) in ends):
            found.append(taken)
    return found


def _ends(wanted: Sequence[tuple[_Word, str]], source: _Source, start: int) -> list[int]:
    """The clauses after which the words wanted are said from the beginning of clause `start` on."""
    states = {(start, -1, True)}  # clause, the last word of it that was taken, nothing of the clause left out
    for word, joint in wanted:
        reached = set()
        for clause, last, whole in states:
            here = source.clauses[clause]
            for i in range(last + 1, len(here.words)):
                if (joint and last >= 0) or not _same(word, here.words[i]):
                    continue
                left_out = i > last + 1
                if left_out and (source.whole or not _may_skip(here, last, i)):
                    continue
                reached.add((clause, i, whole and not left_out))
            following = clause + 1
            complete = last == len(here.words) - 1 and _fits(here, whole)
            if complete and following < len(source.clauses):
                other = source.clauses[following]
                joined = joint in ("", other.joint) if not other.joint else joint == other.joint
                if joined and _same(word, other.words[0]):
                    reached.add((following, 0, True))
        states = reached
    found = []
    for clause, last, whole in states:
        here = source.clauses[clause]
        rest = here.words[last + 1 :]
        if last < 0 or (rest and (source.whole or not _may_end(here, last))):
            continue
        if _fits(here, whole and not rest):
            found.append(clause + 1)
    return found


def _fits(clause: _Clause, whole: bool) -> bool:
    return whole or not any(word.text in LIMITS for word in clause.words)


def _same(word: _Word, other: _Word) -> bool:
    return word.text == other.text and (other.capital or not word.capital)


def _may_skip(clause: _Clause, last: int, i: int) -> bool:
    """Whether the words between two that are taken may be left out."""
    skipped = [word.text for word in clause.words[last + 1 : i]]
    described = clause.determined[last + 1] and len(skipped) <= 2 and all(map(_describes, skipped))
    if described and not clause.determined[i] and clause.words[i].text not in FUNCTION_WORDS:
        return True
    if last < 0:
        return all(text in OPENERS for text in skipped)
    if all(text in ADVERBS or (text.endswith("ly") and len(text) > 4) for text in skipped):
        return True
    phrase = _is_phrase(clause, last + 1, i, BEFORE_PHRASES) and clause.words[i].text in BEFORE_PHRASES
    return phrase and clause.words[last].text not in FUNCTION_WORDS


def _describes(text: str) -> bool:
    """Whether a word behind an article may be an adjective that takes nothing back: no verb in -s, no "former"."""
    verb = text.endswith("s") and not text.endswith(("ous", "less"))
    return not (verb or text in FUNCTION_WORDS or text in TURNING or text[0].isdigit())


def _may_end(clause: _Clause, last: int) -> bool:
    """Whether what comes after a word may be left out."""
    rest = [word.text for word in clause.words[last + 1 :]]
    if clause.words[last].text in FUNCTION_WORDS:
        return False
    return all(text in ADVERBS for text in rest) or _is_phrase(clause, last + 1, len(clause.words), AT_ENDS)


def _is_phrase(clause: _Clause, start: int, end: int, prepositions: frozenset[str]) -> bool:
    """Whether words of a clause that tells what happened once are a phrase of where or when: without its verb."""
    words = [word.text for word in clause.words]
    verbs = [text in PAST or text in _BE or (text.endswith("ed") and len(text) > 4) for text in words]
    told = any(verbs[:start]) or any(verbs[end:])
    if start + 1 >= end or words[start] not in prepositions or not told or any(verbs[start:end]):
        return False
    # "in the winter", "in May", "in 1906": not "by mistake", nor "far from clean".
    return clause.determined[start + 1] or clause.words[start + 1].capital or words[start + 1][0].isdigit()
