"""Speech: voice activity, recognition with word times, subtitles, denoising, and summaries of what was said.

    from vtsum.enhance.speech import transcribe

    said = transcribe("talk.mp4")  # the subtitle track in the file, else the best Whisper at hand, denoised
    for utterance in said.utterances:
        print(utterance.start, utterance.text)

Cleaning and measuring words: `speech.denoise`, `speech.denoise_seq2seq`, `speech.wer`; what a sentence is worth:
`speech.summary`.
"""

from vtsum.enhance.speech.activity import Stretch, voice_activity, voiced
from vtsum.enhance.speech.recognisers import Recogniser, make_recogniser
from vtsum.enhance.speech.sound import read_sound
from vtsum.enhance.speech.subtitle_text import as_srt, as_vtt
from vtsum.enhance.speech.subtitle_track import read_subtitle_track
from vtsum.enhance.speech.subtitles import read_transcript
from vtsum.enhance.speech.transcribe import transcribe
from vtsum.enhance.speech.transcript import Transcript, Utterance, Word

__all__ = [
    "Recogniser",
    "Stretch",
    "Transcript",
    "Utterance",
    "Word",
    "as_srt",
    "as_vtt",
    "make_recogniser",
    "read_sound",
    "read_subtitle_track",
    "read_transcript",
    "transcribe",
    "voice_activity",
    "voiced",
]
