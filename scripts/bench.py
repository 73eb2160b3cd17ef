#!/usr/bin/env python3
"""Measures the figures of docs/benchmarks.md.

    scripts/bench.py [--dir DIR] [--runs 3] [--secs 5] [--only limits,load,read,whole,writes,create,tx,sims,disk,bench,million]

Needs Python 3.9+, Debian's wrk, and what `cargo build --release` and `cargo bench --no-run` make. Starts its own servers on
loopback, in a new directory below DIR (default: a temporary one); prints a table with medians and writes them to
bench-out/figures.json. Each rate has beside it the server's CPU time per request, the figure that neighbours disturb least.
Deleting many files slows later creates on some file systems for minutes: use a new DIR each time.
"""
import argparse
import glob
import http.client
import json
import os
import random
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.parse

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
BINARY = os.path.join(ROOT, "target", "release", "fhirsim")
SYSTEM = "http://bench.example.org/mrn"
LOINC = ["8867-4", "8310-5", "9279-1", "8480-6", "8462-4", "29463-7", "8302-2", "39156-5", "2708-6", "59408-5"]
TICK = os.sysconf("SC_CLK_TCK")


def patient(number, family, birth):
    """A Patient of about 2 KB."""
    return {
        "resourceType": "Patient",
        "text": {"status": "generated", "div": "<div xmlns=\"http://www.w3.org/1999/xhtml\"><p>" + "Registered at the outpatient department. " * 8 + "</p></div>"},
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/patient-birthPlace", "valueAddress": {"city": "Springfield", "state": "MA", "country": "US"}}],
        "identifier": [
            {"use": "usual", "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR", "display": "Medical record number"}]},
             "system": SYSTEM, "value": number, "period": {"start": "2001-05-06"}, "assigner": {"display": "Bench General Hospital"}},
            {"use": "official", "system": "http://hl7.org/fhir/sid/us-ssn", "value": "999-" + number}],
        "active": True,
        "name": [{"use": "official", "family": family, "given": ["Bench", "Quincy"], "prefix": ["Mx."]}, {"use": "nickname", "given": ["Benny"]}],
        "telecom": [{"system": "phone", "value": "+1-555-0100", "use": "home", "rank": 1}, {"system": "email", "value": number.lower() + "@bench.example.org"}],
        "gender": "female", "birthDate": birth, "deceasedBoolean": False,
        "address": [{"use": "home", "text": "534 Erewhon St, Springfield, MA 01101", "line": ["534 Erewhon St", "Apt 7"], "city": "Springfield", "district": "Hampden",
                     "state": "MA", "postalCode": "01101", "country": "US", "period": {"start": "1999-12-25"}}],
        "maritalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus", "code": "M", "display": "Married"}]},
        "contact": [{"relationship": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0131", "code": "N"}]}],
                     "name": {"family": "Du Marche", "given": ["Benedicte"]}, "telecom": [{"system": "phone", "value": "+33 (237) 998327"}], "gender": "female"}],
        "communication": [{"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "en-US"}]}, "preferred": True}],
    }


def observation(subject, n):
    code = LOINC[n % len(LOINC)]
    return {"resourceType": "Observation", "status": "final",
            "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}]}],
            "code": {"coding": [{"system": "http://loinc.org", "code": code, "display": "Bench measure"}]}, "subject": {"reference": subject},
            "effectiveDateTime": "2024-%02d-%02dT08:%02d:00Z" % (n % 12 + 1, n % 28 + 1, n % 60),
            "valueQuantity": {"value": 60 + n % 40, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"}}


def family(n, patients):
    return "Fam%05d" % (n % max(1, patients // 33))


def birth(n):
    return "%d-%02d-%02d" % (1950 + n % 50, n % 12 + 1, n % 28 + 1)


class Server:
    def __init__(self, folder, *extra):
        self.folder = folder
        self.start(*extra)

    def start(self, *extra):
        began = time.time()
        self.process = subprocess.Popen([BINARY, "serve", "--addr", "127.0.0.1:0", "--simdb", self.folder, *extra], stdout=subprocess.PIPE,
                                        stderr=open(self.folder.rstrip("/") + ".log", "a"), text=True)
        line = self.process.stdout.readline()
        self.ready_ms = (time.time() - began) * 1000
        self.url = next(word for word in line.split() if word.startswith("http://"))
        self.port = int(self.url.rsplit(":", 1)[1])

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def cpu(self):
        fields = open("/proc/%d/stat" % self.process.pid).read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def anon_mb(self):
        return next(int(line.split()[1]) for line in open("/proc/%d/status" % self.process.pid) if line.startswith("RssAnon")) / 1024

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def call(self, method, path, body=None, connection=None):
        connection = connection or self.connect()
        connection.request(method, path, body=json.dumps(body) if body is not None else None, headers={"Content-Type": "application/fhir+json"})
        response = connection.getresponse()
        data = response.read()
        return response.status, json.loads(data) if data else None


class Bench:
    def __init__(self, options, folder):
        self.o, self.folder, self.rows, self.values = options, folder, [], {}
        self.numbers = {}  # of each patient loaded, by id

    def note(self, what, figure, unit, aside=""):
        self.values[what] = figure
        self.rows.append((what, figure, unit, aside))
        print("| %s | %s %s | %s |" % (what, ("%.3g" if figure < 100 else "%.0f") % figure, unit, aside), flush=True)

    def wrk(self, url, connections, lua=None, server=None, secs=None):
        """Medians of rate, p50 in ms, CPU microseconds a request."""
        script = os.path.join(self.folder, "wrk.lua")
        seen = []
        for _ in range(self.o.runs):
            with open(script, "w") as f:
                f.write("SEED=%d\nwrk.headers['Content-Type']='application/fhir+json'\n" % random.randrange(1 << 30) + (lua or "") + """
function done(s, l, r) io.write(string.format("RESULT %d %d %d %d %d\\n", s.requests, s.duration, l:percentile(50), l:percentile(99),
  s.errors.status + s.errors.connect + s.errors.read + s.errors.write + s.errors.timeout)) end""")
            before = server.cpu() if server else 0
            out = subprocess.run(["wrk", "-t1", "-c%d" % connections, "-d%ds" % (secs or self.o.secs), "-s", script, url], capture_output=True, text=True).stdout
            used = server.cpu() - before if server else 0
            requests, took, p50, p99, errors = map(int, out.split("RESULT ")[1].split())
            if errors:
                print("  %d errors at %s" % (errors, url))
            seen.append((requests / took * 1e6, p50 / 1000, p99 / 1000, used / max(1, requests) * 1e6))
        return [statistics.median(x[i] for x in seen) for i in range(4)]

    def rate(self, what, url, connections, server, lua=None):
        rate, p50, p99, cpu = self.wrk(url, connections, lua, server)
        self.values[what + " p50"] = p50
        self.note(what, rate, "/s", "p50 %.2f ms, p99 %.2f ms, %.0f us CPU" % (p50, p99, cpu))
        return rate

    def bare(self):
        """The limits, in the same minute as what is compared with them."""
        limits = max(glob.glob(os.path.join(ROOT, "target/release/deps/limits-*")), key=lambda p: (not p.endswith(".d"), os.path.getmtime(p)))
        body = os.path.join(self.folder, "body.json")
        with open(body, "w") as f:
            json.dump(patient("L-1", "Fam00001", "1971-02-03"), f)
        process = subprocess.Popen([limits, "http", "9091", body])
        time.sleep(1)
        try:
            # Asked as the server is: by paths that differ.
            lua = "math.randomseed(SEED)\nrequest=function() return wrk.format('GET',string.format('/sim/bench__main/fhir/Patient/%012d-0000-4000-8000-%012d',math.random(1,9999),math.random(1,9999))) end"
            for c in (1, 16):
                rate, p50, _, _ = self.wrk("http://127.0.0.1:9091/", c, lua)
                self.values["bare c=%d p50" % c] = p50
                self.note("bare handler c=%d" % c, rate, "/s", "p50 %.3f ms" % p50)
        finally:
            process.kill()
        return limits

    def folders(self, limits, name):
        seen = []
        for n in range(self.o.runs):
            out = subprocess.run([limits, "folders", os.path.join(self.folder, "%s%d" % (name, n)), "15000"], capture_output=True, text=True).stdout
            seen.append(json.loads(out))
        rate = statistics.median(x["folders"] / x["seconds"] for x in seen)
        self.values["bare loop p50"] = statistics.median(x["p50_us"] for x in seen) / 1000
        self.note("bare event folder loop", rate, "/s", "p50 %.3f ms" % self.values["bare loop p50"])

    def load(self, server, sim, patients, per_patient):
        """Patients with their Observations, in transaction Bundles of about 100 entries, four at a time."""
        server.call("PUT", "/api/sims/" + sim)
        groups = max(1, 100 // (per_patient + 1))
        jobs, lock, ids = iter(range(0, patients, groups)), threading.Lock(), []

        def work():
            connection = server.connect()
            while True:
                with lock:
                    start = next(jobs, None)
                if start is None:
                    return
                entries = []
                for n in range(start, min(start + groups, patients)):
                    urn = "urn:uuid:00000000-0000-4000-8000-%012d" % n
                    entries.append({"fullUrl": urn, "resource": patient("M-%07d" % n, family(n, patients), birth(n)), "request": {"method": "POST", "url": "Patient"}})
                    entries += [{"resource": observation(urn, n * per_patient + k), "request": {"method": "POST", "url": "Observation"}} for k in range(per_patient)]
                status, answer = server.call("POST", "/sim/%s/fhir" % sim, {"resourceType": "Bundle", "type": "transaction", "entry": entries}, connection)
                assert status == 200, answer
                found = [e["response"]["location"].split("/")[1] for e in answer["entry"] if e["response"]["location"].startswith("Patient/")]
                with lock:
                    ids.extend(found)
                    self.numbers.update(zip(found, range(start, start + len(found))))

        began = time.time()
        threads = [threading.Thread(target=work) for _ in range(4)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        return ids, patients * (per_patient + 1) / (time.time() - began)

    def reads(self, server, sim, ids, patients, label=""):
        base = "%s/sim/%s/fhir" % (server.url, sim)
        chosen = random.sample(ids, min(2000, len(ids)))
        table = "local ids={%s}\nmath.randomseed(SEED)\n" % ",".join('"%s"' % i for i in chosen)
        path = "/sim/%s/fhir" % sim
        by_id = table + "request=function() return wrk.format('GET','%s/Patient/'..ids[math.random(#ids)]) end" % path
        by_identifier = "math.randomseed(SEED)\nrequest=function() return wrk.format('GET',string.format('%s/Patient?identifier=%s%%%%7CM-%%07d',math.random(0,%d))) end" % (
            path, urllib.parse.quote(SYSTEM, safe="").replace("%", "%%"), patients - 1)
        by_name = "math.randomseed(SEED)\nrequest=function() return wrk.format('GET',string.format('%s/Patient?family=Fam%%05d&birthdate=gt1970&_count=20',math.random(0,%d))) end" % (path, max(1, patients // 33) - 1)
        by_subject = table + "request=function() return wrk.format('GET','%s/Observation?subject=Patient/'..ids[math.random(#ids)]..'&code=http%%3A%%2F%%2Floinc.org%%7C%s') end" % (path, LOINC[3])
        for c in (1, 16):
            self.rate("read%s c=%d" % (label, c), base, c, server, by_id)
        for what, lua in (("search identifier", by_identifier), ("search family+birthdate", by_name), ("search subject+code", by_subject)):
            self.rate("%s%s c=16" % (what, label), base, 16, server, lua)
        return by_identifier

    def create_lua(self, sim, method="POST", ids=None):
        body = json.dumps(patient("NUMBER", "Fam00001", "1971-02-03"))
        if method == "POST":
            return "math.randomseed(SEED)\nlocal n=0\nlocal body=[==[%s]==]\nrequest=function() n=n+1; return wrk.format('POST','/sim/%s/fhir/Patient',nil,(body:gsub('NUMBER',SEED..'-'..n))) end" % (body, sim)
        body = body[:-1] + ',"id":"IDENT"}'
        return "math.randomseed(SEED)\nlocal n=0\nlocal body=[==[%s]==]\nrequest=function() n=n+1; local id='u'..math.random(%d); return wrk.format('PUT','/sim/%s/fhir/Patient/'..id,nil,(body:gsub('NUMBER',SEED..'-'..n):gsub('IDENT',id))) end" % (body, ids, sim)

    def run(self):
        wanted = self.o.only.split(",")
        limits = self.bare() if "limits" in wanted else None
        main = Server(os.path.join(self.folder, "main"))
        ids = []
        if "load" in wanted:
            ids, rate = self.load(main, "bench__main", 10_000, 10)
            self.note("load 110,000 resources", rate, "resources/s", "transactions of about 100, 4 connections; RssAnon %.0f MB" % main.anon_mb())
            time.sleep(5)
        if "read" in wanted:
            by_identifier = self.reads(main, "bench__main", ids, 10_000)
            writer = subprocess.Popen(["wrk", "-t1", "-c1", "-d%ds" % (self.o.secs * self.o.runs + 4), "-s", self.script("writer", self.create_lua("bench__main")), main.url], stdout=subprocess.DEVNULL)
            self.rate("search identifier c=16 while a writer works", main.url, 16, main, by_identifier)
            writer.wait()
        if "whole" in wanted:
            self.whole(main, "bench__main", ids, 10_000)
            self.texts(main)
        if "create" in wanted:
            limits and self.folders(limits, "loop-a")
            main.call("PUT", "/api/sims/bench__create")
            for c in (1, 16):
                self.rate("create c=%d" % c, main.url, c, main, self.create_lua("bench__create"))
            limits and self.folders(limits, "loop-b")
            for what, n in (("update of 1 id", 1), ("update of 1,000 ids", 1000)):
                self.rate("%s c=16" % what, main.url, 16, main, self.create_lua("bench__create", "PUT", n))
        if "tx" in wanted:
            main.call("PUT", "/api/sims/bench__tx")
            bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": observation("Patient/x", n), "request": {"method": "POST", "url": "Observation"}} for n in range(100)]}
            lua = "local body=[==[%s]==]\nrequest=function() return wrk.format('POST','/sim/bench__tx/fhir',nil,body) end" % json.dumps(bundle)
            for c in (1, 4):
                self.rate("transaction of 100 Observations c=%d" % c, main.url, c, main, lua)
        if "writes" in wanted:
            self.writes(main, "bench__main", ids, 10_000)
        if "million" in wanted:
            ids, rate = self.load(main, "bench__million", 90_910, 10)
            self.note("load 1,000,000 resources", rate, "resources/s", "")
            time.sleep(8)
            self.reads(main, "bench__million", ids, 90_910, " of 1,000,000")
            self.whole(main, "bench__million", ids, 90_910, " of 1,000,000")
        main.stop()
        if "bench" in wanted:
            self.instant()
        if "sims" in wanted:
            self.many()
        if "disk" in wanted:
            disk = Server(os.path.join(self.folder, "disk"), "--durability", "disk")
            disk.call("PUT", "/api/sims/bench__disk")
            for c in (1, 16, 64):
                self.rate("create with --durability disk c=%d" % c, disk.url, c, disk, self.create_lua("bench__disk"))
            disk.stop()

    def whole(self, server, sim, ids, patients, label=""):
        """What chains, includes, order and depth cost; and what a hostile search costs others."""
        path = "/sim/%s/fhir" % sim
        chosen = random.sample(ids, min(2000, len(ids)))
        # The same patients, by their ids and by their identifiers.
        table = "local ids={%s}\nlocal numbers={%s}\nmath.randomseed(SEED)\n" % (",".join('"%s"' % i for i in chosen), ",".join(str(self.numbers[i]) for i in chosen))
        one = "request=function() return wrk.format('GET','%s/'..(%s)) end"
        some = "(function() local t={} for n=1,20 do t[n]='Patient/'..ids[math.random(#ids)] end return table.concat(t,',') end)()"
        any_id = "ids[math.random(#ids)]"
        identifier = "string.format('%s%%%%7CM-%%07d',numbers[math.random(#numbers)])" % urllib.parse.quote(SYSTEM, safe="").replace("%", "%%")
        code = "'&code=http%%3A%%2F%%2Floinc.org%%7C%s'" % LOINC[3].replace("%", "%%")
        code = code.replace("%%", "%")
        for what, query in (
            ("unchained, 10 hits", "'Observation?subject=Patient/'..%s" % any_id),
            ("chained, 10 hits", "'Observation?subject:Patient.identifier='..%s" % identifier),
            ("_has, 10 matches", "'Patient?_has:Observation:patient:subject=Patient/'..%s" % any_id),
            ("20 hits", "'Observation?subject='..%s..%s" % (some, code)),
            ("20 hits and _include of 20", "'Observation?subject='..%s..%s..'&_include=Observation:subject'" % (some, code)),
            ("20 hits, _total=none", "'Observation?subject='..%s..%s..'&_total=none'" % (some, code)),
        ):
            self.rate("search %s%s c=16" % (what, label), server.url, 16, server, table + one % (path, query))
        self.rate("sort of all Observations by date, first page%s c=1" % label, server.url, 1, server, one % (path, "'Observation?_sort=date&_count=20'"))
        self.deep(server, path, label)
        self.hostile(server, path, patients, label)

    def texts(self, server):
        """What looking into texts costs."""
        one = "request=function() return wrk.format('GET','%s/'..(%s)) end"
        server.call("PUT", "/api/sims/bench__text")
        random.seed(1)
        syllables = ["ba", "ke", "lo", "mi", "nu", "ra", "se", "ti", "vo", "xy"]
        word = lambda: "".join(random.choice(syllables) for _ in range(3))
        connection = server.connect()
        for start in range(0, 100_000, 500):
            entries = []
            for n in range(start, start + 500):
                text = " ".join(word() for _ in range(20))
                organization = {"resourceType": "Organization", "text": {"status": "generated", "div": "<div>%s</div>" % text}, "name": "%s %s %d" % (word(), word(), n)}
                entries.append({"resource": organization, "request": {"method": "POST", "url": "Organization"}})
            assert server.call("POST", "/sim/bench__text/fhir", {"resourceType": "Bundle", "type": "transaction", "entry": entries}, connection)[0] == 200
        time.sleep(6)
        path = "/sim/bench__text/fhir"
        words = "local w={'ba','ke','lo','mi','nu','ra','se','ti','vo','xy'}\nlocal function s() return w[math.random(10)] end\nmath.randomseed(SEED)\n"
        self.rate(":contains over 100,000 distinct strings c=1", server.url, 1, server, words + one % (path, "'Organization?name:contains='..s()..s()..s()..math.random(9)"))
        self.rate("_content phrase over 100,000 narratives c=1", server.url, 1, server, words + one % (path, "'Organization?_content=%22'..s()..s()..s()..'%20'..s()..s()..s()..'%22'"))

    def writes(self, server, sim, ids, patients):
        """What conditions, patches, Bundles of reads and XML cost; and what a writer costs another simulator."""
        path = "/sim/%s/fhir" % sim
        table = "local ids={%s}\nmath.randomseed(SEED)\n" % ",".join('"%s"' % i for i in random.sample(ids, min(2000, len(ids))))
        read = table + "request=function() return wrk.format('GET','%s/Patient/'..ids[math.random(#ids)]%s) end"
        json_rate = self.rate("read again c=16", server.url, 16, server, read % (path, ""))
        self.rate("read as XML c=16", server.url, 16, server, read % (path, "..'?_format=xml'"))
        number = "string.format('%s|M-%%07d',math.random(0,%d))" % (SYSTEM, patients - 1)
        self.rate("search identifier again c=16", server.url, 16, server, "math.randomseed(SEED)\nrequest=function() return wrk.format('GET','%s/Patient?identifier='..(%s):gsub('|','%%%%7C'):gsub(':','%%%%3A')) end" % (path, number))
        create = "math.randomseed(SEED)\nlocal h={['Content-Type']='application/fhir+json',['Prefer']='return=minimal'}\nlocal body=[==[%s]==]\nrequest=function() h['If-None-Exist']='identifier='..%s; return wrk.format('POST','%s/Patient',h,body) end"
        self.rate("conditional create that matches c=16", server.url, 16, server, create % (json.dumps(patient("X", "X", "1970-01-01")), number, path))
        server.call("PATCH", "/api/sims/" + sim, {"settings": {"record": "changes"}})
        self.rate("the same where only changes are recorded c=16", server.url, 16, server, create % (json.dumps(patient("X", "X", "1970-01-01")), number, path))
        server.call("PATCH", "/api/sims/" + sim, {"settings": {"record": "writes"}})
        server.call("PUT", "/api/sims/bench__patch")
        update = self.create_lua("bench__patch", "PUT", 1000)
        self.rate("update of 1,000 ids again c=16", server.url, 16, server, update)
        patch = "math.randomseed(SEED)\nlocal h={['Content-Type']='application/json-patch+json'}\nlocal n=0\nrequest=function() n=n+1; return wrk.format('PATCH','/sim/bench__patch/fhir/Patient/u'..math.random(1000),h,'[{\"op\":\"replace\",\"path\":\"/name/0/family\",\"value\":\"F'..n..'\"}]') end"
        self.rate("JSON Patch of 1,000 ids c=16", server.url, 16, server, patch)
        batch = {"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": "Patient/%s" % i}} for i in random.sample(ids, 100)]}
        self.rate("batch of 100 reads c=4", server.url, 4, server, "local body=[==[%s]==]\nrequest=function() return wrk.format('POST','%s',nil,body) end" % (json.dumps(batch), path))
        big = {"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": observation("Patient/x", n), "request": {"method": "POST", "url": "Observation"}} for n in range(1000)]}
        server.call("PUT", "/api/sims/bench__big")
        self.rate("transaction of 1,000 Observations c=2", server.url, 2, server, "local body=[==[%s]==]\nrequest=function() return wrk.format('POST','/sim/bench__big/fhir',nil,body) end" % json.dumps(big))
        quarter = read % (path, "") + "\ndelay=function() return math.random(0,%d) end\n" % round(16 / (json_rate / 4) * 1000 * 2)
        capacity, _, _, _ = self.wrk(server.url, 4, self.create_lua("bench__big"), server)
        slow = self.create_lua("bench__big") + "\ndelay=function() return math.random(0,%d) end\n" % round(4 / (capacity / 4) * 1000 * 2)
        for what, reads in (("p99 of reads c=16 beside writes", read % (path, "")), ("p99 of reads at a quarter beside writes", quarter)):
            alone = self.wrk(server.url, 16, reads, server)
            # Who writes would be another machine: its work gives way, the server's for it does not.
            writer = subprocess.Popen(["chrt", "--idle", "0", "wrk", "-t1", "-c4", "-d%ds" % (self.o.secs * self.o.runs + 2), "-s", self.script("writer", slow), server.url], stdout=subprocess.DEVNULL)
            beside = self.wrk(server.url, 16, reads, server)
            writer.wait()
            self.note(what + " to another simulator", beside[2], "ms", "alone %.2f ms, ratio %.2f" % (alone[2], beside[2] / alone[2]))
        self.exports(server, path, quarter)

    def exports(self, server, path, quarter):
        """The p99 of reads at a quarter of the capacity, alone and beside exports of all, each deleted when it is there."""
        alone = self.wrk(server.url, 16, quarter, server)
        stop, made = threading.Event(), []

        def export():
            connection = server.connect()
            while not stop.is_set():
                connection.request("GET", path + "/$export", None, {"Prefer": "respond-async", "Accept": "application/fhir+json"})
                response = connection.getresponse()
                response.read()
                assert response.status == 202, response.status
                status = urllib.parse.urlsplit(response.getheader("Content-Location")).path
                while server.call("GET", status, None, connection)[0] == 202:
                    time.sleep(0.1)
                assert server.call("DELETE", status, None, connection)[0] == 202
                made.append(status)

        thread = threading.Thread(target=export)
        thread.start()
        beside = self.wrk(server.url, 16, quarter, server)
        stop.set()
        thread.join()
        self.note("p99 of reads beside exports", beside[2], "ms", "alone %.2f ms, ratio %.2f; %d exports" % (alone[2], beside[2] / alone[2], len(made)))

    def deep(self, server, path, label):
        """The time of page 1 and of page 1,000, by following next."""
        connection = server.connect()
        for order in ("", "&_sort=-date"):
            url, took = path + "/Observation?_count=20" + order, []
            for _ in range(1_010):
                began = time.time()
                status, page = server.call("GET", url, None, connection)
                took.append((time.time() - began) * 1000)
                assert status == 200
                url = urllib.parse.urlsplit(next(l["url"] for l in page["link"] if l["relation"] == "next"))
                url = url.path + "?" + url.query
            first, last = statistics.median(took[:10]), statistics.median(took[1_000:])
            self.note("page 1,000%s%s" % (order, label), last, "ms", "page 1: %.2f ms, ratio %.2f" % (first, last / first))

    def hostile(self, server, path, patients, label):
        """The p99 of searches at a quarter of the capacity, alone and beside a search that asks for too much."""
        identifier = "math.randomseed(SEED)\nrequest=function() return wrk.format('GET',string.format('%s/Patient?identifier=%s%%%%7CM-%%07d',math.random(0,%d))) end\n" % (
            path, urllib.parse.quote(SYSTEM, safe="").replace("%", "%%"), patients - 1)
        capacity, _, _, _ = self.wrk(server.url, 16, identifier, server)
        quarter = identifier + "delay=function() return math.random(0,%d) end\n" % round(16 / (capacity / 4) * 1000 * 2)
        alone = self.wrk(server.url, 16, quarter, server)
        values = ",".join("Fam%05d" % n for n in range(1_000))
        form = "&".join(["subject:Patient.family=" + values] * 20) + "&_include=*&_count=1000"
        stop, answers = threading.Event(), []

        def ask():
            connection = server.connect()
            while not stop.is_set():
                connection.request("POST", path + "/Observation/_search", form, {"Content-Type": "application/x-www-form-urlencoded"})
                response = connection.getresponse()
                began = time.time()
                body = response.read()
                answers.append((response.status, len(body), time.time() - began))

        thread = threading.Thread(target=ask)
        thread.start()
        beside = self.wrk(server.url, 16, quarter, server)
        stop.set()
        thread.join()
        self.note("p99 at a quarter of capacity beside a hostile search%s" % label, beside[2], "ms", "alone %.2f ms, ratio %.2f; %.0f/s; %d hostile answers of status %s" % (
            alone[2], beside[2] / alone[2], beside[0], len(answers), sorted({a[0] for a in answers})))

    def script(self, name, lua):
        path = os.path.join(self.folder, name + ".lua")
        with open(path, "w") as f:
            f.write("SEED=%d\nwrk.headers['Content-Type']='application/fhir+json'\n%s" % (random.randrange(1 << 30), lua))
        return path

    def instant(self):
        """Snapshots, clones, resets, time travel, waiting."""
        server = Server(os.path.join(self.folder, "instant"))
        connection = server.connect()

        def timed(method, path, body=None, expect=(200, 201, 204)):
            began = time.time()
            status, found = server.call(method, path, body, connection)
            assert status in expect, (status, found)
            return (time.time() - began) * 1000, found

        server.call("PUT", "/api/sims/big__one", {}, connection)
        self.load(server, "big__one", 9_000, 10)
        before = self.disk(server.folder)
        took, _ = timed("POST", "/api/sims/big__one/snapshots", {"name": "s"})
        self.note("snapshot of 99,000 resources", took, "ms", "what was recent is flushed")
        clones, resets = [], []
        for n in range(max(3, self.o.runs)):
            clones.append(timed("POST", "/api/sims", {"id": "big__c%d" % n, "from": "big__one@s"})[0])
            timed("PUT", "/sim/big__c%d/fhir/Patient/x" % n, {"resourceType": "Patient", "id": "x"})
            resets.append(timed("POST", "/api/sims/big__c%d/reset" % n, {"snapshot": "big__one@s"})[0])
        self.note("clone of 99,000 resources", statistics.median(clones), "ms", "disk %+d kB in all" % ((self.disk(server.folder) - before) // 1024))
        self.note("reset of it to the snapshot", statistics.median(resets), "ms", "")
        self.note("first search in a clone", timed("GET", "/sim/big__c1/fhir/Patient?family=Fam00003")[0], "ms", "")
        server.call("PUT", "/api/sims/small__t", {}, connection)
        self.load(server, "small__t", 1_000, 0)
        timed("POST", "/api/sims/small__t/snapshots", {"name": "s"})
        began = time.time()
        for n in range(1_000):
            timed("POST", "/api/sims", {"id": "small__c%04d" % n, "from": "small__t@s"})
        self.note("1,000 clones of a template of 1,000 resources", 1_000 / (time.time() - began), "/s", "one connection")
        timed("POST", "/api/sims/big__one/markers", {"name": "m"})
        _, page = timed("GET", "/sim/big__one/fhir/Patient?_count=1")
        patient = page["entry"][0]["resource"]
        for n in range(100):
            timed("PUT", "/sim/big__one/fhir/Patient/" + patient["id"], patient)
        for what, path in (("read", "Patient/" + patient["id"]), ("search", "Patient?family=Fam00003")):
            now = self.wrk(server.url + "/sim/big__one/fhir/" + path, 1, None, server)
            then = self.wrk(server.url + "/sim/big__one@marker:m/fhir/" + path, 1, None, server)
            self.note("%s as of 100 updates before" % what, then[1], "ms p50", "now %.2f ms, ratio %.2f" % (now[1], then[1] / now[1]))
        woken = []
        for n in range(50):
            waiting = server.connect()
            waiting.request("GET", "/api/sims/small__t/events?wait=30s&resource=Patient/wake%d" % n)
            time.sleep(0.01)
            server.call("PUT", "/sim/small__t/fhir/Patient/wake%d" % n, {"resourceType": "Patient", "id": "wake%d" % n}, connection)
            began = time.time()
            assert waiting.getresponse().read().find(b"timedOut") < 0
            woken.append((time.time() - began) * 1000)
        self.note("a wait is answered after the answer to the write", statistics.median(woken), "ms", "greatest %.2f ms" % max(woken))
        listeners = []
        alone = self.wrk(server.url + "/sim/small__t/fhir/Patient", 1, self.slow_writes(), server)
        for n in range(500):
            one = server.connect()
            one.request("GET", "/api/sims/small__t/stream")
            listeners.append(one)
        # None of them reads: their buffers fill, and then they lag.
        beside = self.wrk(server.url + "/sim/small__t/fhir/Patient", 1, self.slow_writes(), server)
        self.note("p50 of 50 creates a second with 500 listeners", beside[1], "ms", "alone %.2f ms, ratio %.2f; RssAnon %.0f MB" % (alone[1], beside[1] / alone[1], server.anon_mb()))
        server.stop()

    def slow_writes(self):
        return """wrk.method='POST'
wrk.body='{"resourceType":"Patient","active":true}'
function delay() return 20 end
"""

    def disk(self, folder):
        return int(subprocess.run(["du", "-sb", folder], capture_output=True, text=True).stdout.split()[0])

    def many(self):
        folder = os.path.join(self.folder, "many")
        server = Server(folder)
        connection = server.connect()
        took = []
        for n in range(10_000):
            began = time.time()
            server.call("PUT", "/api/sims/many__s%05d" % n, {}, connection)
            took.append((time.time() - began) * 1000)
        self.note("making a simulator", statistics.median(took), "ms", "over HTTP; p99 %.2f ms" % sorted(took)[len(took) * 99 // 100])
        self.load(server, "many__s00001", 1000, 0)
        time.sleep(6)
        cold, ready = [], []
        for _ in range(max(3, self.o.runs)):
            server.stop()
            server.start()
            ready.append(server.ready_ms)
            anon = server.anon_mb()
            connection = server.connect()
            connection.connect()
            began = time.time()
            status, found = server.call("GET", "/sim/many__s00001/fhir/Patient?family=Fam00003", None, connection)
            cold.append((time.time() - began) * 1000)
            assert status == 200 and found["total"] > 20, found
        self.note("10,000 simulators: ready after", statistics.median(ready), "ms", "process start included")
        self.note("10,000 simulators: idle RssAnon", anon, "MB", "")
        self.note("first request to a cold simulator of 1,000 resources", statistics.median(cold), "ms", "a search, after a clean stop")
        server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--secs", type=int, default=5)
    parser.add_argument("--only", default="limits,load,read,whole,writes,create,tx,sims,disk,bench,million")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="fhirsim-bench-", dir=options.dir)
    print("in %s\n| what | median | |\n|---|--:|---|" % folder, flush=True)
    bench = Bench(options, folder)
    bench.run()
    os.makedirs(os.path.join(ROOT, "bench-out"), exist_ok=True)
    with open(os.path.join(ROOT, "bench-out", "figures.json"), "w") as f:
        json.dump(bench.values, f, indent=1)


if __name__ == "__main__":
    main()
