#!/usr/bin/env python3
"""Stores the FHIR specification's own examples in a running server, reads them back and searches them.

    scripts/spec_examples.py --server http://127.0.0.1:8080 [--packages DIR] [--every N] [--versions STU3,R4,R4B,R5]
    scripts/spec_examples.py --binary target/debug/fhirsim [...]        # starts a server of its own

Needs Python 3.9+ and npm. Every Nth example (default 1: all) is PUT into a simulator of its version, read back and compared
member by member (decimals as they are written), and looked for by each search parameter that has the name of one of its
elements: by its own values, which must find it, and by values of other examples that it does not have, which must not. Prints one line a version, `N passed, N failed` at the end, and what failed.
"""
import argparse
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
import urllib.error
import urllib.parse
import urllib.request

PACKAGES = {
    "STU3": "hl7.fhir.r3.examples@3.0.2",
    "R4": "hl7.fhir.r4.examples@4.0.1",
    "R4B": "hl7.fhir.r4b.examples@4.3.0",
    "R5": "hl7.fhir.r5.examples@5.0.0",
}


class Exact(str):
    """A number as it was written."""


def loads(text):
    return json.loads(text, parse_float=Exact, parse_int=Exact)


def examples(spec, folder, every):
    name, version = spec.rsplit("@", 1)
    path = os.path.join(folder, "%s-%s.tgz" % (name, version))
    if not os.path.exists(path):
        subprocess.run(["npm", "pack", "--silent", spec], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    seen = 0
    with tarfile.open(path) as tar:
        for member in tar:
            base = os.path.basename(member.name)
            if not base.endswith(".json") or base.startswith((".", "package")):
                continue
            text = tar.extractfile(member).read()
            try:
                resource = loads(text)
            except ValueError:
                continue
            if not isinstance(resource, dict) or "resourceType" not in resource or not re.fullmatch(r"[A-Za-z0-9.-]{1,64}", str(resource.get("id", ""))):
                continue
            seen += 1
            if seen % every == 0:
                yield base, text, resource


class Server:
    def __init__(self, url):
        self.url = url

    def call(self, method, path, body=None):
        request = urllib.request.Request(self.url + path, data=body, method=method, headers={"Content-Type": "application/fhir+json"})
        try:
            with urllib.request.urlopen(request) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as e:
            return e.code, e.read()


def without_identity(resource):
    copy = {k: v for k, v in resource.items() if k not in ("id", "meta")}
    meta = {k: v for k, v in resource.get("meta", {}).items() if k not in ("versionId", "lastUpdated")}
    return copy, meta


def escape(text):
    return re.sub(r"([\\,$|])", r"\\\1", text)


# Parameters named like an element of the resource that are about another one.
OTHER = {("CodeSystem", "language"), ("Questionnaire", "code"), ("ImagingStudy", "uid")}


def queries(resource, params):
    """(parameter, value) pairs by which the resource must be found, read off its top-level elements."""
    for code, kind in params.items():
        if (resource["resourceType"], code) in OTHER:
            continue
        element = re.sub(r"-(.)", lambda m: m.group(1).upper(), code)
        value = resource.get(element)
        for one in value if isinstance(value, list) else [value]:
            if kind == "token" and isinstance(one, dict):
                for coding in one.get("coding", [one]):
                    word = coding.get("code") or coding.get("value")
                    if isinstance(word, str) and not isinstance(word, Exact):
                        yield code, escape(word)
                        if coding.get("system"):
                            yield code, escape(coding["system"]) + "|" + escape(word)
            elif kind == "token" and isinstance(one, bool):
                yield code, str(one).lower()
            elif kind in ("token", "uri") and isinstance(one, str) and not isinstance(one, Exact):
                yield code, escape(one)
            elif kind == "string" and isinstance(one, str) and one.strip():
                yield code, escape(one[:40])
                yield code + ":exact", escape(one)
            elif kind == "date" and isinstance(one, str):
                yield code, one
            elif kind == "reference" and isinstance(one, dict) and isinstance(one.get("reference"), str) and not one["reference"].startswith("#"):
                yield code, escape(one["reference"].split("/_history/")[0])


def plain(text):
    """Without case and accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))


def lacking(resource, others):
    """Of (parameter, value) pairs of other resources of the type those that this one surely lacks: nothing in it reads so."""
    text = plain(json.dumps(resource, ensure_ascii=False))
    for code, value in others:
        part = plain(re.sub(r"\\(.)", r"\1", value)).split("|")[-1]
        is_date = re.fullmatch(r"[0-9]{4}(-[0-9]{2}){0,2}(t.*)?", part)
        if len(part) > 3 and part.isprintable() and not set(part) & set('"\\') and not is_date and part not in text:
            yield code, value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8080")
    parser.add_argument("--binary")
    parser.add_argument("--packages")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--versions", default=",".join(PACKAGES))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if not args.binary:
            return check(args, temporary)
        command = [args.binary, "serve", "--addr", "127.0.0.1:0", "--log", "error", "--simdb", os.path.join(temporary, "simdb")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            args.server = next(word for word in process.stdout.readline().split() if word.startswith("http://"))
            try:
                return check(args, temporary)
            finally:
                process.terminate()


def check(args, temporary):
    failed, passed = [], 0
    for version in args.versions.split(","):
        server = Server(args.server)
        sim = "examples__%s" % version.lower()
        server.call("DELETE", "/api/sims/" + sim)
        status, body = server.call("PUT", "/api/sims/" + sim, json.dumps({"fhirVersion": version}).encode())
        assert status == 201, (status, body)
        base = Server(args.server + "/sim/%s/fhir" % sim)
        metadata = json.loads(base.call("GET", "/metadata")[1])
        params = {r["type"]: {p["name"]: p["type"] for p in r["searchParam"]} for r in metadata["rest"][0]["resource"]}
        stored = {}
        for name, text, resource in examples(PACKAGES[version], args.packages or temporary, args.every):
            key = "/%s/%s" % (resource["resourceType"], resource["id"])
            status, body = base.call("PUT", key, text)
            if status not in (200, 201):
                failed.append("%s %s: PUT %s %s" % (version, name, status, body[:200]))
                continue
            stored[key] = (name, resource)
        asked = missed = 0
        known = {}
        for name, resource in stored.values():
            known.setdefault(resource["resourceType"], []).extend(queries(resource, params[resource["resourceType"]]))
        chance = random.Random(1)
        for key, (name, resource) in stored.items():
            status, body = base.call("GET", key + "?_format=json")
            if status != 200 or without_identity(loads(body)) != without_identity(resource):
                failed.append("%s %s: GET %s differs" % (version, name, status))
                continue
            passed += 1
            for code, value in queries(resource, params[resource["resourceType"]]):
                asked += 1
                query = urllib.parse.urlencode({code: value, "_id": resource["id"]})
                status, body = base.call("GET", "/%s?%s" % (resource["resourceType"], query))
                if status != 200 or json.loads(body).get("total") != 1 or json.loads(body)["entry"][-1]["search"]["mode"] == "outcome":
                    failed.append("%s %s: %s found %s" % (version, name, query, body[:300] if status != 200 else json.loads(body).get("total")))
                else:
                    passed += 1
            others = list(lacking(resource, known[resource["resourceType"]]))
            for code, value in chance.sample(others, min(5, len(others))):
                missed += 1
                query = urllib.parse.urlencode({code: value, "_id": resource["id"]})
                status, body = base.call("GET", "/%s?%s" % (resource["resourceType"], query))
                if status != 200 or json.loads(body).get("total") != 0:
                    failed.append("%s %s: %s must not find it: %s %s" % (version, name, query, status, body[:300]))
                else:
                    passed += 1
        print("%s: %d examples stored and read back, %d searches that must find, %d that must not" % (version, len(stored), asked, missed), flush=True)
    for line in failed[:60]:
        print(line, file=sys.stderr)
    print("%d passed, %d failed" % (passed, len(failed)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
