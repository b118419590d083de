"""A shop's web site: static pages on a loopback port, so that calls to the server cross origins."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CLOSE_SECONDS_MAX = 10.0


class Site:
    """Serves one folder; pages that load one script are written as they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        handler = partial(_Quiet, directory=str(folder))
        self._listener = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._listener.daemon_threads = True
        self._thread = threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Return the site's origin."""
        return f"http://127.0.0.1:{self._listener.server_port}"

    def page_with(self, name: str) -> str:
        """Return the address of a page that loads the bundled client `name`."""
        return self._write(name, f'<script src="/{name}.js"></script>')

    def page_of(self, name: str, script: str) -> str:
        """Return the address of a page with an inline script."""
        return self._write(name, f"<script>{script}</script>")

    def close(self) -> None:
        """Stop serving."""
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join(CLOSE_SECONDS_MAX)

    def _write(self, name: str, head: str) -> str:
        document = f"<!doctype html><html><head><title>Shop</title>{head}</head><body></body></html>"
        (self._folder / f"{name}.html").write_text(document)
        return f"{self.url}/{name}.html?utm_source=blog"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_said: object) -> None:
        """Say nothing."""
