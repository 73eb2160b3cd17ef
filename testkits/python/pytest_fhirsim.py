"""fhirsim for pytest: a server, a simulator for every test, and events to wait for. The standard library only.

    def test_the_app_posts_a_patient(simulator, app):
        since = simulator.mark("start")
        app.register("Chalmers", fhir=simulator.base)
        event = simulator.wait_for_event(since=since, type="Patient", status="201", request="name.family = 'Chalmers'")
        assert event["resources"][0]["change"] == "create"

The server is the one at FHIRSIM_SERVER, or one of its own made by the binary FHIRSIM_BINARY (else `fhirsim`).
`@pytest.mark.fhirsim(template="lab__one@loaded", fhir_version="R5", settings={...})` says how a simulator begins.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request

import pytest


class Refused(AssertionError):
    """The server refused; the message is what the OperationOutcome says."""

    def __init__(self, status, body):
        self.status, self.body = status, body
        issues = body.get("issue", []) if isinstance(body, dict) else []
        super().__init__("%d: %s" % (status, "; ".join(i.get("diagnostics", "") for i in issues) or body))


class Server:
    """A running fhirsim."""

    def __init__(self, url, token=None):
        self.url, self.token = url.rstrip("/"), token

    def call(self, method, path, body=None, headers=None, timeout=330):
        """JSON in, JSON out; `Refused` if the status is 400 or more."""
        url = path if path.startswith("http") else self.url + path
        data = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/fhir+json", **(headers or {})}
        if self.token and url.startswith(self.url + "/api"):
            sent["Authorization"] = "Bearer " + self.token
        request = urllib.request.Request(url, data=data, method=method, headers=sent)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            text = error.read()
            raise Refused(error.code, json.loads(text) if text.startswith(b"{") else text.decode(errors="replace")) from None
        return json.loads(text) if text else None

    def simulator(self, name, template=None, fhir_version=None, settings=None):
        """A new simulator; one of that name goes first."""
        try:
            self.call("DELETE", "/api/sims/" + name)
        except Refused as refused:
            if refused.status != 404:
                raise
        wish = {"id": name, "from": template, "fhirVersion": fhir_version, "settings": settings}
        self.call("POST", "/api/sims", {key: value for key, value in wish.items() if value})
        return Simulator(self, name)


class Simulator:
    """A simulator: `base` is its FHIR endpoint."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.base, self.api = "%s/sim/%s/fhir" % (server.url, name), "/api/sims/" + name

    def fhir(self, method, path, body=None, headers=None):
        """Asks the FHIR endpoint."""
        return self.server.call(method, "%s/%s" % (self.base, path.lstrip("/")), body, headers)

    def mark(self, name="start"):
        """Gives this moment a name, to be used as `since`."""
        self.server.call("POST", self.api + "/markers", {"name": name})
        return "marker:" + name

    def events(self, **filters):
        """Events, newest first: `since`, `type`, `status`, `interaction`, `resource`, `request` and so on."""
        return self.server.call("GET", "%s/events?%s" % (self.api, urllib.parse.urlencode(filters)))["events"]

    def wait_for_event(self, timeout="30s", **filters):
        """The newest event that fits, as soon as there is one; fails if none comes."""
        page = self.server.call("GET", "%s/events?%s" % (self.api, urllib.parse.urlencode({"wait": timeout, "limit": 1, **filters})))
        assert page["events"], "%s: no event within %s of %s; the last ones: %s" % (
            self.name, timeout, filters, [(e["interaction"], e["request"]["url"], e["response"]["status"]) for e in self.events(limit=5)])
        return page["events"][0]

    def bodies(self, event):
        """An event with the texts of its request, response and resources."""
        return self.server.call("GET", "%s/events/%s?include=bodies" % (self.api, event["event"]))

    def snapshot(self, name):
        """Gives the state a name; returns what `template` or `reset` take."""
        self.server.call("POST", self.api + "/snapshots", {"name": name})
        return "%s@%s" % (self.name, name)

    def reset(self, snapshot=None):
        """Empties the simulator, or makes it what a snapshot is."""
        self.server.call("POST", self.api + "/reset", {"snapshot": snapshot} if snapshot else None)

    def faults(self, *rules):
        """Makes it go wrong: presets by name, or rules; none ends it."""
        self.server.call("PUT", self.api + "/faults", [{"preset": r} if isinstance(r, str) else r for r in rules])


def pytest_configure(config):
    config.addinivalue_line("markers", "fhirsim(template, fhir_version, settings): how the simulator of a test begins")


@pytest.fixture(scope="session")
def fhirsim_server():
    """The server at FHIRSIM_SERVER, or one of its own."""
    if os.environ.get("FHIRSIM_SERVER"):
        yield Server(os.environ["FHIRSIM_SERVER"], os.environ.get("FHIRSIM_ADMIN_TOKEN"))
        return
    folder = tempfile.mkdtemp(prefix="fhirsim-")
    binary = os.environ.get("FHIRSIM_BINARY", "fhirsim")
    process = subprocess.Popen([binary, "serve", "--addr", "127.0.0.1:0", "--simdb", folder, "--log", "warn"], stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, "%s did not start: %r" % (binary, line)
        yield Server(found.group(0))
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def simulator(fhirsim_server, request):
    """A simulator of the test's own, gone after it."""
    mark = request.node.get_closest_marker("fhirsim")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.nodeid).strip("-")[-60:].strip("-")
    made = fhirsim_server.simulator("pytest-%s__%s" % (worker, name), **(mark.kwargs if mark else {}))
    yield made
    try:
        fhirsim_server.call("DELETE", made.api)
    except Refused as refused:
        # The test may have deleted it itself.
        if refused.status != 404:
            raise
