"""Recognises text that a speech recognizer has invented although nobody spoke.

Whisper fills silence, music and noise with what ended many of the videos it learned from, or repeats itself.
"""

import re
import unicodedata
import zlib
from dataclasses import dataclass

import numpy as np

from workers.transcribe.recognizer import Audio

# Whisper's own limits (its reference decoder): a text that compresses better repeats itself; a lower mean log
# probability is guesswork; and a "no speech" above its limit counts if the text is not sure of itself either.
MAX_COMPRESSION = 2.4
MIN_LOG_PROBABILITY = -1.0
MAX_NO_SPEECH = 0.6
# With "no speech" above its limit. Clear sentences were seen at 0.7 with -0.05; inventions start at -0.9.
MIN_LOG_PROBABILITY_IN_DOUBT = -0.6

# Fastest speech: letters a second in alphabets, characters a second in Chinese and Japanese.
MAX_LETTERS_PER_S = 40
MAX_CHARACTERS_PER_S = 14

# -60 dB of full scale: what is quieter holds no word that could be understood.
MIN_PEAK = 1e-3

_REPEATS = 4  # a phrase said so often in a row is a loop; three times may be a host's manner
_LONGEST_REPEATED = 8  # words or characters of a repeated phrase

# Compared without case, spaces and punctuation, in traditional and simplified characters.
_INVENTED = frozenset(
    re.sub(r"[\W_]+", "", phrase)
    for phrase in """
    you|bye|bye bye|thank you|thank you so much|thank you very much
    thanks for watching|thank you for watching|thank you so much for watching|thanks for watching bye
    please subscribe|please subscribe to my channel|like and subscribe|don't forget to subscribe|see you next time
    see you in the next video|i'll see you in the next video|subtitles by the amara.org community
    transcription by castingwords|transcribed by https://otter.ai|subtitles by|www.mooji.org|music|applause|silence
    谢谢观看|謝謝觀看|感谢观看|感謝觀看|谢谢大家|謝謝大家|谢谢收看|謝謝收看|感谢收看|感謝收看|谢谢您的观看|謝謝您的觀看
    字幕by索兰娅|字幕由amara.org社区提供|字幕由amara.org社區提供|字幕志愿者杨栋梁|字幕志願者楊棟樑|中文字幕志愿者杨茜茜
    请不吝点赞订阅转发打赏支持明镜与点点栏目|請不吝點贊訂閱轉發打賞支持明鏡與點點欄目|明镜与点点栏目|明鏡與點點欄目
    请订阅我的频道|請訂閱我的頻道|优优独播剧场yoyotelevisionseriesexclusive|優優獨播劇場yoyotelevisionseriesexclusive
    ご視聴ありがとうございました|시청해주셔서감사합니다|untertitelderamara.orgcommunity|sous-titresréalisésparlacommunautéd'amara.org
    """.strip()
    .casefold()
    .replace("\n", "|")
    .split("|")
)


@dataclass(frozen=True)
class Heard:
    """A recognizer's raw answer.

    Attributes:
        log_probability: Mean over the tokens.
        no_speech: Probability that nobody speaks.
    """

    text: str
    log_probability: float
    no_speech: float


def is_silent(audio: Audio) -> bool:
    """Returns whether there is nothing to hear."""
    return len(audio) == 0 or float(np.abs(audio).max()) < MIN_PEAK


def is_doubtful(heard: Heard, seconds: float) -> bool:
    """Returns whether the text was probably not said."""
    limit = MIN_LOG_PROBABILITY_IN_DOUBT if heard.no_speech > MAX_NO_SPEECH else MIN_LOG_PROBABILITY
    return heard.log_probability < limit or repeats_itself(heard.text) or is_too_fast(heard.text, seconds)


def is_invented(text: str) -> bool:
    """Returns whether the whole text is a phrase that Whisper is known to invent. None of these names a product."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold()) in _INVENTED


def is_too_fast(text: str, seconds: float) -> bool:
    """Returns whether the text is too long to be said in that time."""
    wide = sum(unicodedata.east_asian_width(letter) == "W" for letter in text)
    letters = sum(letter.isalnum() for letter in text) - wide
    return letters / MAX_LETTERS_PER_S + wide / MAX_CHARACTERS_PER_S > seconds + 1


def repeats_itself(text: str) -> bool:
    """Returns whether the text repeats a phrase over and over."""
    encoded = text.encode()
    if len(encoded) / max(1, len(zlib.compress(encoded))) > MAX_COMPRESSION:
        return True
    pieces = re.findall(r"[^\W\d_]+|\d+", text.casefold())
    if len(pieces) <= 2:  # written without spaces
        pieces = list("".join(pieces))
    for size in range(1, _LONGEST_REPEATED + 1):
        run = 0
        for at in range(size, len(pieces)):
            run = run + 1 if pieces[at] == pieces[at - size] else 0
            if run >= size * (_REPEATS - 1):
                return True
    return False
