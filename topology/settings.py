"""All settings of the workers, read from the environment (`COPE_…`) or a `.env` file."""

import os
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, get_args

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from topology.errors import UserError

Role = Literal["capture", "transcribe", "embed", "recognize", "catalog", "monitor", "evidence", "webhook"]
ROLES: tuple[Role, ...] = get_args(Role)
FLOW: tuple[Role, ...] = ("capture", "transcribe", "embed", "recognize", "catalog", "monitor")
"""The roles from a stream to what is on; the others add to it, where they are wanted."""


def shared_processors(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Half of the processors that this process may use: pictures and speech are computed side by side.

    Args:
        cpu_max: Where Linux says how much of them a container may take.
    """
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with suppress(OSError, ValueError):  # not Linux, or no limit: "max 100000"
        quota, period = map(int, cpu_max.read_text().split())
        count = min(count, quota / period)
    return max(1, int(count / 2))


class Settings(BaseSettings):
    """Effective settings. `cope-live config` prints them with their sources and secrets hidden."""

    model_config = SettingsConfigDict(env_prefix="COPE_", env_file=".env", extra="ignore", frozen=True)

    # Broker
    broker: str = Field("embedded", description="Kafka bootstrap servers, host:port[,host:port]; `embedded` starts one")
    broker_username: str = Field("", description="SASL user; empty: no SASL")
    broker_password: SecretStr = Field(SecretStr(""), description="SASL password")
    broker_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="How the broker checks user and password"
    )
    broker_tls: bool = Field(False, description="Talk TLS to the broker")
    broker_ca_file: Path | None = Field(None, description="CA certificate; default: the system's")
    broker_session_timeout_s: float = Field(
        30.0, gt=0, description="Consumer session time-out; a crashed worker's partitions move after it"
    )
    idempotent_producer: bool = Field(True, description="Needs a broker with InitProducerId; off when embedded")
    topic_prefix: str = Field("", description="Prefix of all topic names, consumer groups included")
    stream_partitions: int = Field(12, gt=0, description="Partitions of topics keyed by stream")
    product_partitions: int = Field(4, gt=0, description="Partitions of topics keyed by product")
    replication_factor: int = Field(1, gt=0, description="Of topics that we create")

    # What records may have the workers open
    allowed_networks: str = Field(
        "",
        description="Private networks (10.0.0.0/8) and hosts (media.internal) that pictures and streams may be on, "
        "separated by commas; empty: the public internet alone",
    )
    allowed_folders: str = Field(
        "",
        description="Folders below which records may name local files, separated by colons; empty: none",
    )

    # Index
    qdrant_url: str = Field("", description="Qdrant server; empty: the embedded engine (Qdrant Edge)")
    qdrant_api_key: SecretStr = Field(SecretStr(""), description="Key of the Qdrant server; empty: it needs none")
    index_dir: Path | None = Field(None, description="Folder of the embedded index; default: a temporary one")
    index_alias: str = Field("product_pages", description="Alias that searches go through")

    # Model
    model: str = Field("cope-mini", description="COPE artefact: `cope-mini` (shipped) or a folder")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "float32"] = Field(
        "auto", description="In which the model looks at frames; `auto`: bfloat16 where the processor computes in it"
    )
    threads: int = Field(
        default_factory=shared_processors,
        ge=0,
        description="CPU threads of each model; default: half of the cores, which the roles of a machine share; 0: all",
    )

    # Words that are seen
    read_words: Literal["auto", "on", "off"] = Field(
        "auto", description="Read words in frames and page pictures; `auto`: if the model does"
    )
    read_every_ms: int = Field(
        4_000, gt=0, description="Media time between frames that are read; each costs about 0.1 CPU s and its regions"
    )
    read_regions: int = Field(1, ge=0, le=8, description="Salient regions of such a frame that are read enlarged")

    # Capture
    frames_per_second: float = Field(1.0, gt=0, le=30, description="Frames a second that are looked at")
    sampling: Literal["fixed", "keyframes", "change"] = Field(
        "fixed", description="Which frames: at a fixed rate, the stream's keyframes, or those that change"
    )
    frame_height: int = Field(360, ge=64, le=2160, description="Frames are resized to this height, never enlarged")
    jpeg_quality: int = Field(90, ge=1, le=100, description="Of the frames on live_frames")
    speech_chunk_s: float = Field(4.0, gt=0.5, le=30, description="Longest stretch of speech in one record")
    open_timeout_s: float = Field(10.0, gt=0, description="How long a source may take to open")
    stall_timeout_s: float = Field(10.0, gt=0, description="Reconnect after so long without a picture")
    reconnect_max_s: float = Field(30.0, gt=0, description="Longest pause between reconnects")
    reconnect_give_up_s: float = Field(300.0, gt=0, description="A live stream that stays away for so long has ended")
    file_ahead_s: float = Field(60.0, gt=0, description="How far a file may be read ahead of its windows")

    # Transcribe
    asr_model: str = Field("packaged", description="`packaged` (Whisper base), a hub name, or a folder")
    asr_beam_size: int = Field(1, ge=1, le=10, description="Hypotheses of the speech model; more cost time")
    default_language: str = Field("", description="Of streams that name none; empty: detect")

    # Embed
    window_ms: int = Field(8_000, gt=0, description="Media time that a window covers")
    hop_ms: int = Field(2_000, gt=0, description="Media time between the starts of two windows")
    grace_ms: int = Field(4_000, ge=0, description="Live: how long a window waits for its keywords")
    look_back_ms: int = Field(20_000, ge=0, description="How long before a window its keywords may have been said")
    batch_size: int = Field(16, gt=0, description="Most frames that embed encodes in one call, one by one")
    idle_timeout_s: float = Field(
        120.0, gt=0, description="A stream without frames for so long is closed; above stall_timeout + reconnect_max"
    )

    # Recognize
    threshold: float = Field(0.5, gt=0, lt=1, description="Confidence at which a sighting starts")
    candidates: int = Field(20, gt=0, description="Products fetched per search")
    update_every_ms: int = Field(10_000, gt=0, description="Media time between `updated` events of a sighting")

    # Evidence
    evidence_url: str = Field(
        "",
        description="Where pictures of detections are kept: a folder or any fsspec URL; empty: a folder of the user's "
        "data, in `watch` one that goes with it",
    )
    evidence_days: float = Field(30.0, gt=0, description="How long detections are kept, in days")
    evidence_limit_mb: int = Field(
        10_000, gt=0, description="Limit for all kept detections; above it the oldest are deleted"
    )
    evidence_frames: int = Field(2, ge=1, le=8, description="Best frames that are kept of a sighting; each costs 15 ms")
    evidence_faces: Literal["blur", "keep"] = Field("blur", description="How faces in kept frames are treated")

    # Webhook
    webhook_url: str = Field("", description="Where each event is posted (`worker webhook`); empty: nowhere")
    webhook_secret: SecretStr = Field(SecretStr(""), description="Key of the signatures of posted events")

    # Serving
    http_host: str = Field("127.0.0.1", description="Address that /metrics, /healthz and monitor's API listen on")
    http_token: SecretStr = Field(SecretStr(""), description="Token for all but /healthz and /metrics; empty: none")
    http_hosts: str = Field(
        "", description="Names by which HTTP clients call this server, separated by commas; `*`: any; addresses always"
    )
    http_viewer_token: SecretStr = Field(
        SecretStr(""), description="Token of those who may look, and not write; empty: none"
    )
    http_user_header: str = Field(
        "", description="Header in which a proxy names the user that it has checked, e.g. X-Forwarded-User; empty: none"
    )
    http_trusted_proxies: str = Field(
        "127.0.0.0/8,::1", description="Networks of the proxies whose http_user_header is believed, separated by commas"
    )
    http_reviewers: str = Field(
        "*", description="Users of http_user_header who may write, separated by commas; `*`: all of them"
    )
    http_unprotected: bool = Field(False, description="Listen beyond this machine also without http_token")
    http_port: int = Field(0, ge=0, le=65_535, description="/metrics, /healthz and monitor's API; 0: any free port")
    log_format: Literal["text", "json"] = Field("text", description="key=value lines, or one JSON object a line")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged")


def load_settings(**overrides: object) -> Settings:
    """Returns the settings of the environment, with the given ones on top.

    Raises:
        UserError: A setting has a value that it cannot have.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "COPE_" + "_".join(map(str, first["loc"])).upper()
        raise UserError(f"setting {name}={first['input']!r}: {first['msg'].lower()}") from None


def unknown_settings() -> list[str]:
    """Returns a line for each name in the environment or the `.env` file that looks like a setting but is not one."""
    known = {name.upper() for name in Settings.model_fields}
    named = {*os.environ, *dotenv_values(".env")}
    unknown = sorted(name for name in named if name.upper().startswith("COPE_") and name.upper()[5:] not in known)
    lines = []
    for name in unknown:
        near = get_close_matches(name.upper()[5:], known, n=1)
        lines.append(f"there is no setting {name}" + (f": did you mean COPE_{near[0]}?" if near else "; it is ignored"))
    return lines
