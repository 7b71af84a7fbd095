"""Shows the monitor's page for `watch --page`."""

import os
import socket
import sys
import webbrowser

from topology.settings import Settings
from workers.cli.watch.view import View


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def page_address(settings: Settings) -> str:
    """Returns where the monitor serves its page, as seen from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.http_host, settings.http_host)  # noqa: S104
    return f"http://{host}:{settings.http_port}/"


def show_page(settings: Settings, view: View) -> None:
    """Prints the page's address, and opens it in a browser if there is a screen."""
    address = page_address(settings)
    view.say(f"{address} shows what happens")
    # Elsewhere a text browser would take over the terminal.
    has_screen = sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if has_screen and sys.stdout.isatty():
        webbrowser.open(address)
