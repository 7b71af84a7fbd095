"""A live server as platforms run it: nginx with its RTMP module, which takes RTMP and gives RTMP and HLS."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

_MODULE_FOLDERS = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")

_CONFIG = """
{user}
load_module {module};
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
rtmp {{
    server {{
        listen 127.0.0.1:{rtmp_port};
        application live {{
            live on;
            publish_notify on;
            hls on;
            hls_path {folder}/hls;
            hls_fragment 1s;
            hls_playlist_length 8s;
        }}
    }}
}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{http_port}; location /hls {{ alias {folder}/hls; }} }}
}}
"""


def _require(command: str) -> str:
    path = shutil.which(command, path="/usr/sbin:/usr/local/sbin:" + (os.environ.get("PATH", "")))
    if path is None:
        pytest.skip(f"{command} is not installed (Debian: apt-get install nginx libnginx-mod-rtmp ffmpeg)")
    return path


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        return int(first.getsockname()[1]), int(second.getsockname()[1])


class LiveServer:
    """nginx on two free ports, and an ffmpeg that pushes a file to it, over and over, at the speed of its clock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._nginx, self._ffmpeg = _require("nginx"), _require("ffmpeg")
        modules = [path for name in _MODULE_FOLDERS if (path := Path(name, "ngx_rtmp_module.so")).exists()]
        if not modules:
            pytest.skip("nginx has no RTMP module (Debian: apt-get install libnginx-mod-rtmp)")
        self._module = modules[0]
        self._rtmp_port, self._http_port = _free_ports()

    def rtmp_url(self, name: str) -> str:
        return f"rtmp://127.0.0.1:{self._rtmp_port}/live/{name}"

    def hls_url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._http_port}/hls/{name}.m3u8"

    def hls_ready(self, name: str) -> bool:
        playlist = self._folder / "hls" / f"{name}.m3u8"
        return playlist.exists() and ".ts" in playlist.read_text()

    def start(self) -> None:
        """Starts nginx; `listening` says when it takes streams."""
        (self._folder / "hls").mkdir()
        config = self._folder / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                # Started by root, nginx works as another user, who may not write here.
                user="user root;" if self._folder.owner() == "root" else "",
                module=self._module,
                folder=self._folder,
                rtmp_port=self._rtmp_port,
                http_port=self._http_port,
            )
        )
        self._run(self._nginx, "-p", str(self._folder), "-c", str(config))

    def listening(self) -> bool:
        assert self._processes[0].poll() is None, self.log()
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self._rtmp_port)) == 0

    def push(self, file: Path, name: str) -> subprocess.Popen[bytes]:
        loop = ["-stream_loop", "-1", "-re", "-i", str(file)]
        return self._run(self._ffmpeg, "-v", "error", *loop, "-c", "copy", "-f", "flv", self.rtmp_url(name))

    def log(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in self._folder.glob("*.log"))

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(20)

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{Path(command[0]).name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._processes.append(process)
        return process
