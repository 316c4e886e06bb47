"""What every part that a user may bring must be: one protocol a kind.

A part is a class that is made without arguments; `vtsum.plugins` finds it by `module:Class`, or under a plain name
where an installed package lists it as an entry point. T counts sampled frames of one video, in order.

| kind | entry-point group | named by |
|---|---|---|
| Recogniser | vtsum.recognisers | `vtsum summarize --recogniser`, `summarize(speech=)` |
| Segmenter | vtsum.segmenters | `vtsum summarize --segmenter`, `summarize(segmenter=)` |
| Summarizer | vtsum.models | `vtsum summarize --model`, `summarize(model=)` |
| Captioner | vtsum.captioners | `vtsum summarize --captioner`, `summarize(captioner=)` |
| Writer | vtsum.writers | `vtsum summarize --writer`, `summarize(writer=)` |
| FrameEncoder | vtsum.encoders | `vtsum extract --encoder` |
| Loss | vtsum.losses | `vtsum train --loss` |
| Metric | vtsum.metrics | `vtsum evaluate --metric` |
| Tracker | vtsum.trackers | `vtsum train --trackers` |
| Callback | vtsum.callbacks | `vtsum train --callbacks` |
| Method | vtsum.methods | `vtsum benchmark --method` |

A saliency of one's own comes with a Summarizer, captions with it or with a Captioner. A part computes where it
wants to; where it says so, in an attribute `device` ("cpu", "cuda:0"), summary.json says it, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from vtsum.data.tvsum import TVSumVideo
    from vtsum.enhance.speech.activity import Stretch
    from vtsum.enhance.speech.transcript import Utterance


class Recogniser(Protocol):
    """Turns stretches of sound into words with times.

    Attributes:
        name (str): becomes the transcript's `source`.
        longest (float): seconds of the longest stretch that it takes.
        language (str | None): of what is recognised; where it is detected, it is known after the first utterance.
        doubtful (float): the mean confidence of an utterance's words under which it is not to be believed.
        understood (float): the mean confidence of all words under which none of them is: music, animals or another
            language give words here and there that seem sure.
        telling (int): different long words (4 letters and more, confidence 0.2 and more) without which none is either:
            a melody gives "the the the", as sure as may be.
    """

    name: str
    longest: float
    language: str | None
    doubtful: float
    understood: float
    telling: int

    def recognise(self, stretches: Iterable[Stretch]) -> Iterator[Utterance]:
        """Yield what was said, in order, reading `stretches` no further ahead than it must. Stretches in which no words
        are found give nothing. It is called a second time, with the sentences that may be quoted, played a tenth faster
        (`vtsum.enhance.speech.again`): what does not come out the same is not quoted.

        Raises:
            VTSumError: the recogniser stopped working.
        """
        ...


class Segmenter(Protocol):
    """Finds the events of a video."""

    def boundaries(self, features: np.ndarray, fps: float) -> Sequence[float]:
        """How surely an event begins at each frame.

        Args:
            features: float64 [T, C], rows of length 1; frames sampled at `fps` a second.
        Returns:
            [T]: 0 or less where no event begins; of boundaries that lie too near each other those of the greatest sum
            are taken.
        """
        ...


class Caption(Protocol):
    """A sentence on what is seen.

    Attributes:
        text (str): the decoder's words; the summary gives them a capital and a full stop.
        confidence (float): 0..1, the decoder's mean probability a token.
    """

    @property
    def text(self) -> str: ...
    @property
    def confidence(self) -> float: ...


class Summarizer(Protocol):
    """From pictures to what a summary is made of: features, saliency, boundaries, captions.

    Attributes:
        name (str): what it was asked for by; stands in summary.json.
        weights_sha256 (str): of its weights.
        image_size (int): S; frames are stretched to S x S.
        embedded (bool): it is the model that ships with VTSum.
        text_is_guess (bool): its captions are guesses: they are shown, as such, only where they are asked for.
        reads_pictures (bool): `describe` wants a key frame for each span.
    """

    name: str
    weights_sha256: str
    image_size: int
    embedded: bool
    text_is_guess: bool
    reads_pictures: bool

    def encode(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, S, S, 3] RGB -> float32 [N, C]."""
        ...

    def event_features(self, features: np.ndarray) -> np.ndarray:
        """The columns of `encode`'s output that tell events apart: [T, C] -> [T, C']."""
        ...

    def saliency(self, features: np.ndarray) -> np.ndarray:
        """Features [T, C] -> float32 [T] in 0..1: how much each frame matters."""
        ...

    def boundaries(self, features: np.ndarray) -> np.ndarray | None:
        """The probability that an event begins at each frame, [T, C] -> float32 [T] in 0..1; None: it knows none."""
        ...

    def describe(
        self, features: np.ndarray, spans: Sequence[tuple[int, int]], key_frames: Sequence[np.ndarray] | None = None
    ) -> Sequence[Caption]:
        """One caption for each span of frame indices [start, end), or none at all.

        Args:
            features: [T, C], the whole video.
            key_frames: one picture a span, uint8 [H, W, 3]; given where `reads_pictures`.
        """
        ...


class WordReader(Summarizer, Protocol):
    """A `Summarizer` that can tell which pictures fit words, for `--about`.

    Attributes:
        reads_words (bool): it can; False, or no such attribute: it cannot, and `text_features` is not called.
    """

    reads_words: bool

    def text_features(self, text: str) -> np.ndarray:
        """A text in the space of `event_features`, float32 [C']: the pictures nearest to it by cosine fit it best."""
        ...


class Seen(Protocol):
    """What a captioner is given of a shot.

    Attributes:
        pictures: key frames in order of time, uint8 [H, W, 3]; at least one.
        heard (str): what is said meanwhile; it is data, whatever it says.
    """

    @property
    def pictures(self) -> Sequence[np.ndarray]: ...
    @property
    def heard(self) -> str: ...


class CheckedCaption(Caption, Protocol):
    """A caption that knows its chance.

    Attributes:
        chance (float | None): 0..1, of being right; at one half or less the caption is not shown. None: not known.
    """

    @property
    def chance(self) -> float | None: ...


class Captioner(Protocol):
    """Describes shots.

    Attributes:
        name (str), sha256 (dict): of its files of weights; both stand in summary.json.
        pictures (int): how many of each shot it wants, 1 to 16.
    """

    name: str
    sha256: dict[str, str]
    pictures: int

    def describe(self, scenes: Sequence[Seen]) -> Sequence[CheckedCaption]:
        """One caption for each shot; one without a text is left out.

        Raises:
            VTSumError: it stopped working.
        """
        ...


class Writer(Protocol):
    """Writes the text from what is heard and read; every sentence is checked before it is shown.

    Attributes:
        name (str), sha256 (dict): of its files of weights; both stand in summary.json.
    """

    name: str
    sha256: dict[str, str]

    def write(self, request: str) -> str:
        """The answer to a request in plain words, which says in which form to answer.

        Raises:
            VTSumError: it stopped working.
        """
        ...


class FrameEncoder(Protocol):
    """Pictures to features.

    Attributes:
        name (str): stands in the manifest of what it made. image_size (int): S. dim (int): C.
        weights_sha256 (str): a digest of the network's weights, whatever file they came from.
    """

    name: str
    image_size: int
    dim: int

    @property
    def weights_sha256(self) -> str: ...

    def encode(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, S, S, 3] RGB -> float32 [N, C]."""
        ...


class Loss(Protocol):
    """What training takes off the saliency."""

    def saliency_loss(self, logits: Tensor, labels: Tensor, mask: Tensor | None) -> Tensor:
        """The loss of saliency logits against every annotator in one forward pass, a scalar that can be differentiated.
        Where a step has several passes, on one rank or more, their losses are averaged.

        Args:
            logits: [B, T]; of packed videos [total].
            labels: [B, A, T] in 0..1, one row an annotator; packed [A, total].
            mask: bool [B, T], True for a real frame; None where all are, and of packed videos.
        """
        ...


class Metric(Protocol):
    """A measure of one video's summary; a data set's figure is the mean over its videos.

    Attributes:
        name (str): what it is called in the evaluation file.
    """

    name: str

    def measure(self, saliency: np.ndarray, labels: np.ndarray, text: str, reference: str) -> float:
        """The measure of one video; finite.

        Args:
            saliency: float32 [T], the model's logits. labels: [A, T], 0 or 1, the annotators' choices.
            text: the model's. reference: the annotators' sentences, joined.
        """
        ...


class Tracker(Protocol):
    """Shows how a training goes. Only the first rank has one."""

    def start(self, run: Path, step: int, settings: Mapping[str, Any]) -> None:
        """Before the first step.

        Args:
            run: the run's folder. step: done before, 0 in a new run; what was logged beyond it comes again.
            settings: of the training, plain data.
        """
        ...

    def log(self, values: Mapping[str, float], step: int) -> None:
        """What was measured: of each step its losses, learning rate, gradient norm and seconds ("train/loss" ...), of a
        validation all that it found ("val/f1" ...). A number may not be finite."""
        ...

    def finish(self) -> None:
        """After the last step, or where the training stops or fails."""
        ...


class Callback(Protocol):
    """Called on the way, on the first rank alone, while the others wait. What it raises ends the training."""

    def checkpoint_written(self, run: Path, folder: Path, step: int) -> None:
        """A checkpoint is whole in `folder`, and RUN/model holds its weights."""
        ...

    def epoch_end(self, run: Path, line: Mapping[str, Any]) -> None:
        """An epoch is over, its checkpoint, where one was due, written; `line`: its last step, as in metrics.jsonl."""
        ...

    def validated(self, run: Path, line: Mapping[str, Any]) -> None:
        """The model was measured on the val split; `line` as in validation.jsonl."""
        ...


class Method(Protocol):
    """A model of saliency among others on TVSum or SumMe. A new one is made for each fold and seed."""

    def fit(self, videos: Sequence[TVSumVideo], validation: Sequence[TVSumVideo], seed: int) -> None:
        """Learn from rated videos.

        Args:
            videos: to learn from: `features` [P, C] at every 15th frame (P differs), `ratings` [U, P] of each rater or
                None, `gtscore` [P], the raters' mean.
            validation: training videos to select by; `vtsum.evaluation.baselines.score_video` is what a row is measured
                by.
            seed: of everything that is drawn.
        """
        ...

    def predict(self, features: np.ndarray) -> np.ndarray:
        """The scores of a video that was not seen before, [P, C] -> [P]; finite, the greater the more it matters."""
        ...
