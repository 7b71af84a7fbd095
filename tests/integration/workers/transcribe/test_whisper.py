"""The packaged Whisper on real speech (synthesised by hibari when the tests run), and on what is no speech."""

from collections.abc import Callable
from pathlib import Path

import cv2
import hibari
import numpy as np
import pytest

from cope.keywords import Vocabulary
from topology.errors import UserError
from topology.settings import Settings
from workers.transcribe.recognizer import SAMPLE_RATE, Audio, Transcript
from workers.transcribe.whisper import WhisperRecognizer, open_recognizer

Say = Callable[[str], Audio]

TITLES = ("Apple Juice", "Carrot Juice", "Black Hoodie", "Seaberry Cordial", "Colored Parrot Cushion", "Red Wine")


@pytest.fixture(scope="module")
def whisper() -> WhisperRecognizer:
    return open_recognizer(Settings(_env_file=None, threads=1, device="cpu"))


def heard(whisper: WhisperRecognizer, audio: Audio, language: str | None) -> Transcript:
    return whisper.transcribe([(audio, language)])[0]


@pytest.fixture(scope="module")
def say() -> Say:
    """Speaks English, 16 kHz."""
    voice = hibari.Hibari()

    def speak(text: str) -> Audio:
        spoken = np.asarray(voice(text, seed=0), np.float32)
        length = round(len(spoken) * SAMPLE_RATE / hibari.SAMPLE_RATE)
        return cv2.resize(spoken[None], (length, 1), interpolation=cv2.INTER_AREA)[0]

    return speak


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    vocabulary = Vocabulary()
    for title in TITLES:
        vocabulary.add(title, title)
    return vocabulary


@pytest.mark.parametrize("title", TITLES)
def test_a_spoken_product_becomes_its_keyword(
    whisper: WhisperRecognizer, say: Say, vocabulary: Vocabulary, title: str
) -> None:
    transcript = heard(whisper, say(f"And this is the {title}, the one that you have all been waiting for."), "en")
    assert transcript.confidence > 0.5
    assert title in dict(vocabulary.extract(transcript.text, "en"))


def test_the_language_is_detected(whisper: WhisperRecognizer, say: Say) -> None:
    transcript = heard(whisper, say("Here is something new for your kitchen."), None)
    assert transcript.language == "en"
    assert transcript.language_probability > 0.8


def test_the_same_sound_gives_the_same_text_whatever_came_before(whisper: WhisperRecognizer, say: Say) -> None:
    sound = say("This is the apple juice, cold pressed and delicious.")
    first = heard(whisper, sound, None)
    heard(whisper, say("Something else entirely about a very black hoodie."), "en")
    assert heard(whisper, sound, None) == first


def test_a_piece_has_the_same_text_whatever_it_is_transcribed_with(whisper: WhisperRecognizer, say: Say) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, 3 * SAMPLE_RATE).astype(np.float32)
    pieces = [
        (say("This is the apple juice, cold pressed and delicious."), "en"),
        (np.zeros(SAMPLE_RATE, np.float32), None),
        (say("Look at the black hoodie."), None),
        (noise, "zh"),
        (np.concatenate([say("And the last one is the red wine."), say("It is very good with cheese.")]), "en"),
        (say("Look at the black hoodie.")[: SAMPLE_RATE // 2], "en"),
    ]
    alone = [heard(whisper, *piece) for piece in pieces]
    assert [bool(one.text) for one in alone[:5]] == [True, False, True, False, True]
    assert whisper.transcribe(pieces) == alone
    assert whisper.transcribe(pieces[::-1]) == alone[::-1]
    assert whisper.transcribe([]) == []


@pytest.mark.parametrize("language", ["en", "zh", None])
@pytest.mark.parametrize("sound", ["silence", "noise", "hum", "chord"])
def test_what_is_no_speech_gives_no_text(whisper: WhisperRecognizer, sound: str, language: str | None) -> None:
    time_s = np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE
    sounds = {
        "silence": np.zeros_like(time_s),
        "noise": np.random.default_rng(0).normal(0, 0.05, len(time_s)),
        "hum": 0.1 * np.sin(2 * np.pi * 120 * time_s),
        "chord": sum(0.05 * np.sin(2 * np.pi * pitch * time_s) for pitch in (262, 330, 392)),
    }
    assert heard(whisper, np.asarray(sounds[sound], np.float32), language).text == ""


def test_a_long_piece_is_heard_to_its_end(whisper: WhisperRecognizer, say: Say) -> None:
    sentences = ("This is the red wine.", "The black hoodie is very warm.", "And the last one is the apple juice.")
    transcript = heard(whisper, np.concatenate([say(sentence) for sentence in sentences * 2]), "en")
    assert transcript.text.lower().count("apple juice") == 2


@pytest.mark.parametrize("model", ["no-such-model-anywhere", "folder"])
def test_a_model_that_is_not_there_is_the_users_mistake(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    name = str(tmp_path) if model == "folder" else model
    with pytest.raises(UserError, match="COPE_ASR_MODEL"):
        WhisperRecognizer(name, "cpu")


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda:97"])
def test_a_device_that_is_not_there_is_the_users_mistake(device: str) -> None:
    with pytest.raises(UserError, match="COPE_DEVICE"):
        WhisperRecognizer("unused", device)
