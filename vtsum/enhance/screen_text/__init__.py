"""Words on the screen: slides, titles, lower thirds, signs, read in few of a video's pictures."""

from vtsum.enhance.screen_text.lines import ScreenLine, lines_of
from vtsum.enhance.screen_text.reader import RapidReader, Reading
from vtsum.enhance.screen_text.sentences import ScreenSentence, quotations
from vtsum.enhance.screen_text.watching import ScreenText

__all__ = ["RapidReader", "Reading", "ScreenLine", "ScreenSentence", "ScreenText", "lines_of", "quotations"]
