"""Bulk data as a researcher's notebook takes it: discover, sign, begin, ask, fetch. With PyJWT, and by SMART's own client."""

import base64
import gzip
import http.server
import json
import pathlib
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASYNC = {"Accept": "application/fhir+json", "Prefer": "respond-async"}
KNOBS = base64.urlsafe_b64encode(json.dumps({"err": "", "page": 7, "dur": 0, "tlt": 15, "m": 1, "stu": 4, "del": 0}).encode()).decode().rstrip("=")


def send(method, url, headers=None, form=None):
    """Status, headers and text."""
    data = urllib.parse.urlencode(form).encode() if form is not None else None
    request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


class Notebook:
    """A client with a key of its own."""

    def __init__(self, server_url):
        self.server_url = server_url
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        self.jwks = {"keys": [{**public, "kid": "mine", "alg": "RS384", "key_ops": ["verify"]}]}
        status, _, text = send("GET", server_url + "/.well-known/smart-configuration", {"Accept": "application/json"})
        assert status == 200, text
        self.smart = json.loads(text)
        assert "RS384" in self.smart["token_endpoint_auth_signing_alg_values_supported"]

    def register(self, **form):
        status, _, self.client_id = send("POST", self.smart["registration_endpoint"], form=form)
        assert status == 200, self.client_id
        return self

    def token(self, lasts=300, scope="system/*.read"):
        claims = {"iss": self.client_id, "sub": self.client_id, "aud": self.smart["token_endpoint"], "exp": int(time.time()) + lasts, "jti": str(uuid.uuid4())}
        assertion = jwt.encode(claims, self.key, algorithm="RS384", headers={"kid": "mine"})
        form = {"scope": scope, "grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
        status, _, text = send("POST", self.smart["token_endpoint"], form=form)
        assert status == 200, text
        granted = json.loads(text)
        assert granted["token_type"] == "bearer" and 0 < granted["expires_in"] <= lasts
        return {"Authorization": "Bearer " + granted["access_token"]}

    def begin(self, path, token):
        status, headers, text = send("GET", self.server_url + path, {**ASYNC, **token})
        assert status == 202, text
        return headers["Content-Location"]

    def manifest(self, status_url, token):
        while True:
            status, headers, text = send("GET", status_url, {"Accept": "application/json", **token})
            if status == 200:
                return json.loads(text)
            assert status == 202, text
            assert "complete" in headers["X-Progress"]
            time.sleep(min(int(headers["Retry-After"]), 0.05))

    def resources(self, manifest, token):
        found = {}
        for output in manifest["output"]:
            status, headers, text = send("GET", output["url"], {"Accept": "application/fhir+ndjson", **token})
            assert status == 200 and headers["Content-Type"] == "application/fhir+ndjson", text
            lines = [json.loads(line) for line in text.split("\n") if line]
            assert len(lines) == output["count"] <= 7
            found.setdefault(output["type"], []).extend(lines)
        return found


@pytest.fixture
def bulk(fhirsim_server):
    """A simulator with patients in a group, behind SMART; the URL has the reference server's knobs."""
    simulator = fhirsim_server.simulator("pytest__bulk")
    for n in range(20):
        simulator.fhir("PUT", "Patient/p%d" % n, {"resourceType": "Patient", "id": "p%d" % n, "gender": "female", "birthDate": "19%02d-01-01" % (40 + n)})
        code = {"coding": [{"system": "http://loinc.org", "code": "72166-2"}]}
        value = {"coding": [{"system": "http://snomed.info/sct", "code": "266919005"}]}
        simulator.fhir("PUT", "Observation/o%d" % n, {"resourceType": "Observation", "id": "o%d" % n, "status": "final", "code": code, "valueCodeableConcept": value, "subject": {"reference": "Patient/p%d" % n}})
    members = [{"entity": {"reference": "Patient/p%d" % n}} for n in range(8)]
    simulator.fhir("PUT", "Group/g", {"resourceType": "Group", "id": "g", "type": "person", "actual": True, "name": "g", "quantity": 8, "member": members})
    fhirsim_server.call("PATCH", simulator.api, {"settings": {"auth": "smart-backend"}})
    return "%s/sim/pytest__bulk/%s/fhir" % (fhirsim_server.url, KNOBS)


@pytest.mark.parametrize("path, patients", [("/$export", 20), ("/Patient/$export", 20), ("/Group/g/$export", 8)])
def test_the_notebook_gets_its_tables(bulk, path, patients):
    notebook = Notebook(bulk)
    notebook.register(jwks=json.dumps(notebook.jwks))
    token = notebook.token()
    status, _, text = send("GET", bulk + "/Group", token)
    assert status == 200 and [(e["resource"]["name"], e["resource"]["quantity"]) for e in json.loads(text)["entry"]] == [("g", 8)]
    place = notebook.begin(path + "?_type=Patient,Observation", token)
    manifest = notebook.manifest(place, token)
    assert manifest["requiresAccessToken"] and manifest["error"] == [] and manifest["transactionTime"] and manifest["request"].endswith(path + "?_type=Patient,Observation")
    resources = notebook.resources(manifest, token)
    assert len(resources["Patient"]) == len(resources["Observation"]) == patients
    smoking = [o for o in resources["Observation"] if o["code"]["coding"][0]["code"] == "72166-2"]
    assert all(o["valueCodeableConcept"]["coding"][0]["code"] for o in smoking) and len(smoking) == patients
    assert send("GET", manifest["output"][0]["url"])[0] == 401
    assert send("DELETE", place, token)[0] == 202
    assert send("GET", place, token)[0] == 404


def test_a_token_that_ends_is_renewed(bulk):
    notebook = Notebook(bulk)
    notebook.register(jwks=json.dumps(notebook.jwks))
    short = notebook.token(lasts=5)
    place = notebook.begin("/Patient/$export", short)
    while True:
        status, headers, text = send("GET", place, short)
        if status == 401:
            break
        time.sleep(0.05)
    assert headers["WWW-Authenticate"].startswith("Bearer") and "expired" in text
    assert notebook.resources(notebook.manifest(place, notebook.token()), notebook.token())


def test_keys_may_be_at_a_url(bulk):
    notebook = Notebook(bulk)

    class Keys(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(notebook.jwks).encode())

        def log_message(self, *_):
            pass

    keys = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    threading.Thread(target=keys.serve_forever, daemon=True).start()
    try:
        notebook.register(jwks_url="http://127.0.0.1:%d/jwks" % keys.server_port)
        assert notebook.resources(notebook.manifest(notebook.begin("/$export", notebook.token()), notebook.token()), notebook.token())
    finally:
        keys.shutdown()


def test_a_token_allows_what_it_says(bulk):
    notebook = Notebook(bulk)
    notebook.register(jwks=json.dumps(notebook.jwks))
    patients = notebook.token(scope="system/Patient.rs")
    assert send("GET", bulk + "/Observation", patients)[0] == 403
    assert send("GET", bulk + "/$export?_type=Observation", {**ASYNC, **patients})[0] == 403
    resources = notebook.resources(notebook.manifest(notebook.begin("/$export", patients), patients), patients)
    assert list(resources) == ["Patient"]


@pytest.mark.parametrize("chosen, patients", [([], 20), (["--group", "g"], 8), (["--since", "2020-01-01"], 20)])
def test_smarts_own_client_downloads(bulk, tmp_path, chosen, patients):
    """smart-fetch, <https://pypi.org/project/smart-fetch/>: it asks for the types that it wants, and for no Group."""
    notebook = Notebook(bulk)
    notebook.register(jwks=json.dumps(notebook.jwks))
    private = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(notebook.key))
    keys = tmp_path / "keys.jwks"
    keys.write_text(json.dumps({"keys": [{**private, "kid": "mine", "alg": "RS384", "key_ops": ["sign"]}]}))
    client = pathlib.Path(sys.executable).parent / "smart-fetch"
    command = [client, "bulk", tmp_path / "out", "--fhir-url", bulk, "--smart-client-id", notebook.client_id, "--smart-key", keys, "--no-default-filters"]
    done = subprocess.run([*command, "--type", "Patient,Observation", *chosen], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {kind: [json.loads(line) for file in (tmp_path / "out").glob(kind + ".*.ndjson.gz") for line in gzip.open(file, "rt")] for kind in ("Patient", "Observation")}
    assert {line["resourceType"] for line in lines["Patient"]} == {"Patient"}
    assert len(lines["Patient"]) == len({line["id"] for line in lines["Patient"]}) == len(lines["Observation"]) == patients
