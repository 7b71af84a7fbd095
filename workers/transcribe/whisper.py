"""Speech recognition with Whisper, through faster-whisper and CTranslate2."""

import logging
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from faster_whisper.tokenizer import Tokenizer

from topology.errors import UserError
from topology.settings import Settings
from workers.transcribe.guards import Heard, is_doubtful, is_invented, is_silent
from workers.transcribe.packaged import packaged_whisper
from workers.transcribe.recognizer import SAMPLE_RATE, Piece, Transcript

_log = logging.getLogger(__name__)

PACKAGED = "packaged"

# Whisper was trained on 30 s and pads all sound to that, but its encoder also takes less, in a fraction of the time.
# It needs silence after the speech: with 1 s most words come out wrong, with 4 s as few as with 30 s
# (benchmarks/asr.py). A few sentences break off at some lengths; these are tried once more. Less than 8 s in all was
# not tried, and would save little.
_FRAMES_PER_S = 100
_WHOLE_S = 30
_LEAST_S = 8
_SILENCE_BEHIND_S = 4
# Below this, a piece is transcribed again, padded to 30 s. Higher: more work; lower: broken sentences stay.
_SECOND_LOOK_LOG_PROBABILITY = -0.6

# Bounds the work when the decoder runs away. Fast Mandarin takes about 12 tokens a second.
_TOKENS_PER_S = 20
_TOKENS_AT_LEAST = 24

# Pieces that go through the model together (benchmarks/asr.py): the decoder's weights are read once a token for all. On
# a CPU the text of each stays the same to the bit; eight are encoded slower than one by one.
_AT_ONCE = {"cpu": 4, "cuda": 16}


class WhisperRecognizer:
    """Whisper on CPU (int8) or GPU (float16).

    Decoding is greedy or by beam, never sampled, and without the text of earlier pieces, which would carry their
    errors on. So the same sound gives the same text, on a CPU also whatever it is transcribed with.

    Args:
        model: Folder of a CTranslate2 Whisper model, or its name on the model hub.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads; 0: all cores.
        beam_size: Hypotheses kept while decoding; 1 is greedy.

    Raises:
        UserError: There is no such model or device.
    """

    def __init__(self, model: str | Path, device: str = "auto", threads: int = 0, beam_size: int = 1) -> None:
        kind, index = _device(device)
        try:
            self._model = WhisperModel(
                str(model),
                device=kind,
                device_index=index,
                compute_type="float16" if kind == "cuda" else "int8",
                cpu_threads=threads or os.cpu_count() or 1,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(
                f"cannot load the speech model {model} ({' '.join(str(error).split())[:200]}): COPE_ASR_MODEL takes "
                "`packaged`, the name of a faster-whisper model on the hub, or its folder"
            ) from error
        self._beam_size = beam_size
        self._multilingual: bool = self._model.model.is_multilingual
        languages = (code for code in self._model.supported_languages if self._multilingual or code == "en")
        self._languages = frozenset(languages)
        self._at_once = _AT_ONCE[kind]

    @property
    def languages(self) -> frozenset[str]:
        """Language tags that may be asked for."""
        return self._languages

    @property
    def at_once(self) -> int:
        """How many pieces are transcribed best together."""
        return self._at_once

    def transcribe(self, pieces: Sequence[Piece]) -> list[Transcript]:
        """Returns what is said in each piece; an empty text if nobody is understood."""
        found = [Transcript(language=one, language_probability=1.0 if one else 0.0) for _, one in pieces]
        by_context: dict[int, list[int]] = defaultdict(list)
        for number, (audio, _) in enumerate(pieces):
            if not is_silent(audio):
                seconds = math.ceil(len(audio) / SAMPLE_RATE)
                by_context[min(_WHOLE_S, max(_LEAST_S, seconds + _SILENCE_BEHIND_S))].append(number)
        for context_s, numbers in by_context.items():
            transcripts = self._transcribe([pieces[number] for number in numbers], context_s)
            for number, transcript in zip(numbers, transcripts, strict=True):
                found[number] = transcript
        return found

    def _transcribe(self, pieces: Sequence[Piece], context_s: int) -> list[Transcript]:
        """Transcribes pieces that are padded to the same length."""
        features = [self._model.feature_extractor(audio) for audio, _ in pieces]
        encoded = self._encode(features, context_s)
        known = self._languages_of(encoded, [language for _, language in pieces])
        longest_s = context_s - _SILENCE_BEHIND_S
        heard = self._decode(encoded, [language for language, _ in known], longest_s)
        found = []
        for (audio, _), feature, (language, probability), best in zip(pieces, features, known, heard, strict=True):
            seconds = len(audio) / SAMPLE_RATE
            if context_s < _WHOLE_S and (
                best.log_probability < _SECOND_LOOK_LOG_PROBABILITY or is_doubtful(best, seconds) or not best.text
            ):
                again = self._decode(self._encode([feature], _WHOLE_S), [language], seconds)[0]
                # The first look goes on where both are poor, so that noise has one more chance to be silence.
                if not is_doubtful(again, seconds) and (
                    is_doubtful(best, seconds) or again.log_probability > best.log_probability
                ):
                    best = again
            if is_doubtful(best, seconds) or is_invented(best.text):
                found.append(Transcript(language=language, language_probability=probability))
            else:
                confidence = math.exp(min(0.0, best.log_probability)) if best.text else 0.0
                found.append(Transcript(best.text, language, probability, confidence))
        return found

    def _encode(self, features: Sequence[Any], context_s: int) -> ctranslate2.StorageView:
        return self._model.encode(np.stack([pad_or_trim(one, context_s * _FRAMES_PER_S) for one in features]))

    def _languages_of(self, encoded: ctranslate2.StorageView, asked: Sequence[str | None]) -> list[tuple[str, float]]:
        """Returns the language of each piece and its probability: 1 for one that was asked for."""
        if None in asked and self._multilingual:
            tokens = [best[0] for best in self._model.model.detect_language(encoded)]
            detected = [(token[2:-2], probability) for token, probability in tokens]  # "<|en|>"
        else:
            detected = [("en", 1.0)] * len(asked)
        return [(one, 1.0) if one else found for one, found in zip(asked, detected, strict=True)]

    def _decode(self, encoded: ctranslate2.StorageView, languages: Sequence[str], longest_s: float) -> list[Heard]:
        tokenizers = [
            Tokenizer(self._model.hf_tokenizer, self._multilingual, task="transcribe", language=language)
            for language in languages
        ]
        prompts = [self._model.get_prompt(tokenizer, [], without_timestamps=True) for tokenizer in tokenizers]
        results = self._model.model.generate(
            encoded,
            prompts,
            beam_size=self._beam_size,
            max_length=len(prompts[0]) + _TOKENS_AT_LEAST + round(longest_s * _TOKENS_PER_S),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
            suppress_tokens=[-1],
        )
        return [_heard(result, tokenizer) for result, tokenizer in zip(results, tokenizers, strict=True)]


def _heard(result: Any, tokenizer: Tokenizer) -> Heard:
    tokens = result.sequences_ids[0]
    # The score is the mean over the tokens; the end of the text counts as one more.
    log_probability = result.scores[0] * len(tokens) / (len(tokens) + 1)
    return Heard(tokenizer.decode(tokens).strip(), log_probability, result.no_speech_prob)


def open_recognizer(settings: Settings) -> WhisperRecognizer:
    """Returns the recognizer that the settings name.

    Raises:
        UserError: There is no such model or device.
    """
    model = packaged_whisper() if settings.asr_model == PACKAGED else settings.asr_model
    return WhisperRecognizer(model, settings.device, settings.threads, settings.asr_beam_size)


def _device(device: str) -> tuple[str, int]:
    gpus = ctranslate2.get_cuda_device_count()
    if device == "auto":
        return ("cuda", 0) if gpus else ("cpu", 0)
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return "cpu", 0
    if kind != "cuda" or not (index or "0").isdigit():
        raise UserError(f"COPE_DEVICE is {device}: it takes auto, cpu, cuda or cuda:N")
    if int(index or 0) >= gpus:
        raise UserError(f"COPE_DEVICE is {device}, but CTranslate2 sees {gpus} GPU(s): set it to cpu or auto")
    return "cuda", int(index or 0)
