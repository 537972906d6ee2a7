"""Running packages for WebAssembly in Node and in headless Chromium."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for path in map(shutil.which, BROWSERS) if path), None)
needs_zig = pytest.mark.skipif(find_spec("ziglang") is None, reason="needs the package ziglang")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node (apt install nodejs)")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs chromium (apt install chromium)")
_LIMIT_S = 240
# Chromium's own software for GPUs, which it offers only when told.
SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")

Job = Mapping[str, Any]


def run_node(script: str, *arguments: str, given: str = "") -> Any:
    """Return the JSON that a script beside this file prints."""
    done = subprocess.run(
        ["node", str(HERE / script), *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run_job_in_node(package: Path, job: Job) -> Any:
    """Return what job.mjs returns for a package."""
    return run_node("node.mjs", str(package), given=json.dumps(job))


@contextmanager
def served(package: Path, job: Job, *, isolated: bool = True) -> Iterator[tuple[str, queue.Queue[Any]]]:
    """Serve a package, these tests below /tests/ and a job by the package's own server; results come as a queue.

    Without the server's headers that isolate pages for `isolated` False."""
    spec = spec_from_file_location("serve", package / "serve.py")
    assert spec is not None and spec.loader is not None
    serve = module_from_spec(spec)
    spec.loader.exec_module(serve)
    results: queue.Queue[Any] = queue.Queue()

    class Handler(serve.Handler):  # type: ignore[name-defined, misc]
        def do_GET(self) -> None:  # noqa: N802 (as the base class has it)
            if self.path != "/job":
                return super().do_GET()
            body = json.dumps(job).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return None

        def send_header(self, keyword: str, value: str) -> None:
            if isolated or not keyword.startswith("Cross-Origin-"):
                super().send_header(keyword, value)

        def do_POST(self) -> None:  # noqa: N802
            results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def translate_path(self, path: str) -> str:
            if path.startswith("/tests/"):
                return str(HERE / path.removeprefix("/tests/"))
            return str(super().translate_path(path))

    server = serve.make_server(package)
    handler = server.RequestHandlerClass
    server.RequestHandlerClass = lambda *given: Handler(*given, **handler.keywords)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", results
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run_job_in_browser(
    package: Path,
    job: Job,
    profile: Path,
    *,
    isolated: bool = True,
    gpu: Sequence[str] = ("--disable-gpu",),
    limit_s: float = _LIMIT_S,
) -> Any:
    """Return what a job returns in headless Chromium, which keeps its own files in `profile`; `gpu` are its flags."""
    assert BROWSER is not None
    with served(package, job, isolated=isolated) as (address, results):
        flags = [
            "--headless=new",
            "--no-sandbox",
            *gpu,
            "--no-first-run",
            f"--user-data-dir={profile}",
        ]
        browser = subprocess.Popen(
            [BROWSER, *flags, f"{address}/tests/page.html"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return results.get(timeout=limit_s)
        finally:
            browser.terminate()
            browser.wait()
