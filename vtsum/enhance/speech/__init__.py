"""Speech: voice activity, recognition with word times, subtitles, denoising, and summaries of what was said."""

from vtsum.enhance.speech.transcript import Transcript, Utterance, Word

__all__ = ["Transcript", "Utterance", "Word"]
