from pathlib import Path
from typing import Any

import pytest

from topology.addresses import ANYTHING, Allowed, NotAllowedError, allowing
from topology.errors import UserError
from topology.settings import Settings


def allowed(**settings: Any) -> Allowed:
    return Allowed.of(Settings(_env_file=None, **settings))


PRIVATE = [
    "127.0.0.1",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "::1",
    "::",
    "fe80::1",
    "fd00::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
]


@pytest.mark.parametrize("host", PRIVATE)
def test_what_is_not_the_public_internet_is_refused_unless_allowed(host: str) -> None:
    with pytest.raises(NotAllowedError, match="COPE_ALLOWED_NETWORKS"):
        allowed().addresses_of(host, 80)
    assert ANYTHING.addresses_of(host, 80)


@pytest.mark.parametrize("host", ["1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_the_public_internet_is_allowed(host: str) -> None:
    assert allowed().addresses_of(host, 80)


def test_networks_and_hosts_are_allowed_by_setting() -> None:
    some = allowed(allowed_networks="10.0.0.0/8, LOCALHOST")
    assert some.addresses_of("10.9.8.7", 80) == ["10.9.8.7"]
    assert some.addresses_of("localhost", 80)
    assert some.addresses_of("::ffff:10.9.8.7", 80)
    with pytest.raises(NotAllowedError):
        some.addresses_of("127.0.0.1", 80)


def test_urls_are_judged_by_their_host() -> None:
    allowed().check_url("rtmp://user:1.1.1.1@1.1.1.1/live")
    for url in ("rtmp://1.1.1.1:x@127.0.0.1/live", "udp://@:5000", "http://[::1]/", "srt://0:1"):
        with pytest.raises(NotAllowedError):
            allowed().check_url(url)


def test_files_lie_below_allowed_folders_also_behind_links(tmp_path: Path) -> None:
    inside, outside = tmp_path / "a:b", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside / "secret")
    some = Allowed.of(allowing(Settings(_env_file=None), files=[inside / "x.mp4"]))
    some.check_file(inside / "x.mp4")
    some.check_file(inside / "deeper" / "x.mp4")
    for path in (outside / "secret", inside / "link", inside / ".." / "out" / "secret", Path("/etc/passwd")):
        with pytest.raises(NotAllowedError, match="COPE_ALLOWED_FOLDERS"):
            some.check_file(path)


def test_what_a_person_names_is_allowed() -> None:
    some = Allowed.of(allowing(Settings(_env_file=None), urls=["http://127.0.0.1:8080/a.m3u8"]))
    some.check_url("http://127.0.0.1/other")
    with pytest.raises(NotAllowedError):
        some.check_url("http://169.254.169.254/")


def test_a_network_that_is_none_is_named() -> None:
    with pytest.raises(UserError, match=r"10[.]0[.]0[.]0/99"):
        allowed(allowed_networks="10.0.0.0/99")
