"""Speech recognition with Whisper, through faster-whisper and CTranslate2."""

import logging
import math
import os
from pathlib import Path
from typing import Any

import ctranslate2
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from faster_whisper.tokenizer import Tokenizer

from topology.errors import UserError
from topology.settings import Settings
from workers.transcribe.guards import Heard, is_doubtful, is_invented, is_silent
from workers.transcribe.packaged import packaged_whisper
from workers.transcribe.recognizer import SAMPLE_RATE, Audio, Transcript

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


class WhisperRecognizer:
    """Whisper on CPU (int8) or GPU (float16).

    Decoding is greedy or by beam, never sampled, and without the text of earlier pieces, which would carry their
    errors on. So the same sound gives the same text.

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

    @property
    def languages(self) -> frozenset[str]:
        """Language tags that may be asked for."""
        return self._languages

    def transcribe(self, audio: Audio, language: str | None) -> Transcript:
        """Returns what is said; an empty text if nobody is understood.

        Args:
            audio: (N,) at 16 kHz, values in [-1, 1], at most 30 s.
            language: One of `languages`; None to detect it.
        """
        if is_silent(audio):
            return Transcript(language=language, language_probability=1.0 if language else 0.0)
        seconds = len(audio) / SAMPLE_RATE
        features = self._model.feature_extractor(audio)
        context_s = min(_WHOLE_S, max(_LEAST_S, math.ceil(seconds) + _SILENCE_BEHIND_S))
        encoded = self._encode(features, context_s)
        probability = 1.0
        if language is None:
            language, probability = self._detect(encoded)
        best = self._decode(encoded, language, seconds)
        if context_s < _WHOLE_S and (
            best.log_probability < _SECOND_LOOK_LOG_PROBABILITY or is_doubtful(best, seconds) or not best.text
        ):
            again = self._decode(self._encode(features, _WHOLE_S), language, seconds)
            # The first look goes on where both are poor, so that noise has one more chance to be silence.
            if not is_doubtful(again, seconds) and (
                is_doubtful(best, seconds) or again.log_probability > best.log_probability
            ):
                best = again
        if is_doubtful(best, seconds) or is_invented(best.text):
            return Transcript(language=language, language_probability=probability)
        confidence = math.exp(min(0.0, best.log_probability)) if best.text else 0.0
        return Transcript(best.text, language, probability, confidence)

    def _encode(self, features: Any, context_s: int) -> ctranslate2.StorageView:
        return self._model.encode(pad_or_trim(features, context_s * _FRAMES_PER_S))

    def _detect(self, encoded: ctranslate2.StorageView) -> tuple[str, float]:
        if not self._multilingual:
            return "en", 1.0
        token, probability = self._model.model.detect_language(encoded)[0][0]
        return token[2:-2], probability  # "<|en|>"

    def _decode(self, encoded: ctranslate2.StorageView, language: str, seconds: float) -> Heard:
        tokenizer = Tokenizer(self._model.hf_tokenizer, self._multilingual, task="transcribe", language=language)
        prompt = self._model.get_prompt(tokenizer, [], without_timestamps=True)
        result = self._model.model.generate(
            encoded,
            [prompt],
            beam_size=self._beam_size,
            max_length=len(prompt) + _TOKENS_AT_LEAST + round(seconds * _TOKENS_PER_S),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
            suppress_tokens=[-1],
        )[0]
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
