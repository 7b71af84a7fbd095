"""Which addresses and files records may make workers open: private networks and local files only if settings allow it.

Anyone who may write to `live_streams` or `product_pages` decides what the workers open. Without this check a picture
at `http://169.254.169.254/` would expose the machine's cloud credentials, and a path any of its files.
"""

import ipaddress
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from topology.errors import BadInput, Unavailable, UserError
from topology.settings import Settings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# IPv6 addresses that carry an IPv4 address in their last 32 bits: NAT64, and the deprecated "IPv4-compatible" ones.
_CARRIERS = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))


class NotAllowedError(BadInput):
    """A record names an address or a file that the settings do not allow."""


@dataclass(frozen=True)
class Allowed:
    """What may be opened beside the public internet.

    Attributes:
        networks: Private networks.
        hosts: Names in lower case that are allowed wherever they lead.
        folders: Files below these may be read.
        all_files: Every file may be read: what a person names on their own machine.
    """

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()
    folders: tuple[Path, ...] = ()
    all_files: bool = False

    @classmethod
    def of(cls, settings: Settings) -> "Allowed":
        """What the settings allow.

        Raises:
            UserError: An entry that looks like a network cannot be parsed.
        """
        networks: list[Network] = []
        hosts: set[str] = set()
        for entry in _listed(settings.allowed_networks):
            try:
                networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError as error:
                if "/" in entry or ":" in entry:
                    raise UserError(
                        f"COPE_ALLOWED_NETWORKS: {entry[:80]} is neither a network (10.0.0.0/8) nor a host's name"
                    ) from error
                hosts.add(entry.lower())
        folders = tuple(Path(entry).expanduser().resolve() for entry in _folders(settings.allowed_folders))
        return cls(tuple(networks), frozenset(hosts), folders)

    @property
    def everywhere(self) -> bool:
        """Whether every address is allowed."""
        return ipaddress.IPv4Network("0.0.0.0/0") in self.networks

    def addresses_of(self, host: str, port: int) -> list[str]:
        """Resolves a host to the addresses that may be connected to.

        Connect to what this returns and not to the name: it may lead elsewhere the next time it is asked for.

        Raises:
            NotAllowedError: It leads to an address that is not allowed.
            Unavailable: It cannot be resolved now.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise Unavailable(f"{host}: its address cannot be found ({error.strerror})") from error
        except (UnicodeError, ValueError) as error:
            raise BadInput(f"{host[:80]}: not a host's name") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if host.lower().rstrip(".") not in self.hosts:
            for address in addresses:
                if not self._is_allowed(ipaddress.ip_address(address.split("%")[0])):
                    raise NotAllowedError(
                        f"{host} is on a private network, which records may not name: "
                        "COPE_ALLOWED_NETWORKS lists those that may be opened"
                    )
        return addresses

    def check_url(self, url: str) -> None:
        """Resolves the host of a URL; see `addresses_of`. Without a host (`udp://:5000`) it listens on any address."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise BadInput("not a URL") from error
        self.addresses_of((host or "0.0.0.0").lstrip("@"), port or 0)  # noqa: S104 - compared, not bound

    def check_file(self, path: Path) -> None:
        """Raises `NotAllowedError` if the file, or what it is a link to, lies in no allowed folder."""
        if self.all_files:
            return
        try:
            real = path.resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise BadInput("not a path") from error
        if not any(real.is_relative_to(folder) for folder in self.folders):
            raise NotAllowedError(
                f"{str(path)[:200]}: a local file, which records may not name: COPE_ALLOWED_FOLDERS lists the folders "
                "below which they may"
            )

    def _is_allowed(self, address: Address) -> bool:
        inner = _carried(address)
        if any(one in network for network in self.networks for one in (address, inner)):
            return True
        return inner.is_global and not inner.is_multicast and (address == inner or address.version == 6)


ANYTHING = Allowed(
    (ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0")),
    all_files=True,
)
"""What a person may open who runs a command on their own machine."""


def allowing(settings: Settings, *, urls: Iterable[str] = (), files: Iterable[Path] = ()) -> Settings:
    """Returns the settings with the hosts of `urls` and the folders of `files` allowed too: what a person named."""
    hosts = {host.lstrip("@") for url in urls if (host := urlsplit(url).hostname or "0.0.0.0")}  # noqa: S104
    folders = {str(path.resolve().parent) for path in files}
    return settings.model_copy(
        update={
            "allowed_networks": ",".join([*_listed(settings.allowed_networks), *sorted(hosts)]),
            "allowed_folders": json.dumps([*_folders(settings.allowed_folders), *sorted(folders)]),
        }
    )


def _carried(address: Address) -> Address:
    """Returns the IPv4 address that an IPv6 address embeds, else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if int(address) > 1 and any(address in network for network in _CARRIERS):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _folders(setting: str) -> list[str]:
    """Splits a list of folders at colons, as in PATH. A JSON list is taken too: its names may contain colons."""
    if setting.startswith("["):
        try:
            return [str(entry) for entry in json.loads(setting)]
        except ValueError as error:
            raise UserError(f"COPE_ALLOWED_FOLDERS: not a JSON list ({error})") from error
    return [entry for part in setting.split(":") if (entry := part.strip())]


def _listed(setting: str) -> list[str]:
    return [entry for part in setting.split(",") if (entry := part.strip())]
