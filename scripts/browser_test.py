#!/usr/bin/env python3
"""The pages in a real browser: headless Chromium (Debian's package, installed if it is not there), driven over its debugging pipe.

    scripts/browser_test.py [--binary target/debug/fhirsim]
"""
import argparse
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.parse

SECONDS = 30


class Browser:
    """A page of a headless Chromium."""

    def __init__(self, folder):
        binary = shutil.which("chromium") or shutil.which("chromium-browser")
        to_browser, ours = os.pipe()
        theirs, from_browser = os.pipe()

        def fds():
            # The pipe of the protocol is at 3 and 4; what lay there is moved away first.
            read, write = os.dup(to_browser), os.dup(from_browser)
            read, write = os.dup(read), os.dup(write)
            os.dup2(read, 3)
            os.dup2(write, 4)

        arguments = [binary, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe", "--user-data-dir=" + folder, "about:blank"]
        self.process = subprocess.Popen(arguments, preexec_fn=fds, close_fds=False, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.out, self.source, self.rest = ours, theirs, b""
        self.number, self.dialogs, self.session = 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")

    def receive(self):
        while b"\0" not in self.rest:
            read = os.read(self.source, 1 << 16)
            assert read, "the browser has ended"
            self.rest += read
        message, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(message)
        if message.get("method") == "Page.javascriptDialogOpening":
            self.dialogs.append(message["params"]["message"])
        return message

    def call(self, method, **parameters):
        self.number += 1
        sent = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            sent["sessionId"] = self.session
        os.write(self.out, json.dumps(sent).encode() + b"\0")
        number = self.number
        while True:
            message = self.receive()
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def js(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, expression):
        """Asks until it holds: what is waited for happens in another process."""
        end = time.monotonic() + SECONDS
        while True:
            try:
                if self.js(expression):
                    return
            except AssertionError as error:
                # A page that goes while it is asked has not what is waited for; the next may.
                if "navigated or closed" not in str(error) and "context was destroyed" not in str(error):
                    raise
            assert time.monotonic() < end, "not within %d s: %s\n%s" % (SECONDS, expression, self.js("document.body.innerText")[:2000])

    def keys(self, text):
        for key in text:
            self.call("Input.dispatchKeyEvent", type="char", text=key)

    def press(self, key, code):
        for kind in ("rawKeyDown", "char", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text="\r" if key == "Enter" and kind == "char" else "")

    def close(self):
        self.process.kill()
        self.process.wait()


# What every page must have; each yields the elements that lack it.
ACCESSIBLE = """(() => {
  const wrong = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  if (!document.documentElement.lang) wrong.push("no language");
  if (!document.title) wrong.push("no title");
  if (all("h1").length !== 1) wrong.push(`${all("h1").length} first headings`);
  for (const e of all("input:not([type=hidden]), select, textarea")) if (!e.closest("label") && !e.labels?.length) wrong.push(`no label: ${e.outerHTML}`);
  for (const e of all("button, a[href]")) if (!e.hidden && !e.textContent.trim()) wrong.push(`no name: ${e.outerHTML}`);
  for (const e of all("th")) if (!e.scope) wrong.push(`no scope: ${e.outerHTML}`);
  const ids = all("[id]").map((e) => e.id);
  if (new Set(ids).size !== ids.length) wrong.push("an id twice");
  const luminance = (rgb) => rgb.slice(0, 3).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; })
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const numbers = (css) => css.match(/[\\d.]+/g).map(Number);
  const canvas = numbers(getComputedStyle(document.documentElement).getPropertyValue("background-color"));
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const back = canvas.length === 4 && canvas[3] === 0 ? (dark ? [18, 18, 18] : [255, 255, 255]) : canvas;
  for (const e of all("td, p, li, h1, h2, h3, dt, dd, summary, mark, .k, .s, .v, .good, .bad, .done, .tried, .never, a:not(svg a)")) {
    const [a, b] = [luminance(numbers(getComputedStyle(e).color)), luminance(back)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) wrong.push(`contrast ${((a + 0.05) / (b + 0.05)).toFixed(1)}: ${e.outerHTML.slice(0, 80)}`);
  }
  return wrong;
})()"""
HOSTILE = "\"><img src=x onerror=\"window.hacked=1\"><script>window.hacked=1;alert(1)</script>'{{ 7 * 7 }}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/debug/fhirsim")
    options = parser.parse_args()
    if not (shutil.which("chromium") or shutil.which("chromium-browser")):
        subprocess.run("apt-get update -qq && apt-get install -y -qq chromium", shell=True, check=True)
    folder = tempfile.mkdtemp(prefix="fhirsim-browser-")
    server = subprocess.Popen([options.binary, "serve", "--addr", "127.0.0.1:0", "--simdb", folder + "/simdb", "--auto-create", "--log", "warn"], stdout=subprocess.PIPE, text=True)
    url = re.search(r"http://\S+", server.stdout.readline()).group(0)
    browser = Browser(folder + "/profile")
    try:
        journeys(browser, url)
    finally:
        browser.close()
        server.terminate()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def journeys(browser, url):
    host = url.split("//")[1]

    def send(method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(host, timeout=SECONDS)
        connection.request(method, path, body=json.dumps(body) if body is not None else None, headers={"Content-Type": "application/fhir+json", **(headers or {})})
        response = connection.getresponse()
        response.read()
        return response.status, response.headers.get("X-Fhirsim-Event")

    fhir = "/sim/lab__one/fhir"
    # Nothing that a client sent runs, wherever it is shown.
    narrative = {"status": "generated", "div": "<div xmlns=\"http://www.w3.org/1999/xhtml\">%s</div>" % HOSTILE}
    patient = {"resourceType": "Patient", "id": "p", "name": [{"family": HOSTILE}], "text": narrative}
    _, stored = send("PUT", fhir + "/Patient/p", patient, {"X-Own": HOSTILE, "X-Request-Id": HOSTILE})
    send("PUT", fhir + "/Patient/p", {**patient, "active": True, "link": [{"other": {"reference": "Patient/" + HOSTILE}, "type": "seealso"}, {"other": {"reference": "Patient/q"}, "type": "seealso"}]})
    send("PUT", fhir + "/Observation/o", {"resourceType": "Observation", "id": "o", "code": {"text": HOSTILE}, "subject": {"reference": "Patient/p"}})
    send("GET", fhir + "/Patient?" + urllib.parse.urlencode({HOSTILE: HOSTILE}))
    _, refused = send("POST", fhir + "/Patient?" + urllib.parse.quote(HOSTILE, safe=""), {"resourceType": HOSTILE})
    send("PUT", "/api/sims/lab__one/faults", [{"name": "<script>window.hacked=1</script>", "match": {"interaction": ["vread"]}, "preset": "slow"}])
    query = urllib.parse.urlencode({"type": HOSTILE})
    pages = ["/", "/sims/lab__one", "/sims/lab__one?" + query, "/sims/lab__one/events/" + stored, "/sims/lab__one/events/" + refused, "/sims/" + urllib.parse.quote(HOSTILE, safe=""),
             "/?session=" + urllib.parse.quote(HOSTILE), "/sims/lab__one/resources", "/sims/lab__one/resources/Patient?" + urllib.parse.urlencode({"p": "family:" + HOSTILE, "v": HOSTILE}),
             "/sims/lab__one/resources/Patient?family=x&explain=Patient/p", "/sims/lab__one/resources/Patient/p", "/sims/lab__one/resources/Patient/p?version=1", "/sims/lab__one/usage"]
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        for page in pages:
            browser.open(url + page)
            assert browser.js("window.hacked === undefined") and not browser.dialogs, (page, browser.dialogs)
            wrong = browser.js(ACCESSIBLE)
            assert not wrong, (scheme, page, wrong)
    # Readable on a phone: nothing sticks out but what scrolls by itself.
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    for page in pages[:5] + pages[7:]:
        browser.open(url + page)
        assert browser.js("document.documentElement.scrollWidth <= innerWidth"), page
    browser.call("Emulation.clearDeviceMetricsOverride")
    # What happens appears at once.
    browser.open(url + "/sims/lab__one")
    browser.until("document.getElementById('live').textContent.startsWith('Live')")
    before = browser.js("document.querySelectorAll('#events tbody tr').length")
    _, event = send("POST", fhir + "/Patient", {"resourceType": "Patient", "name": [{"family": HOSTILE}]})
    browser.until("document.querySelector('#events tbody a')?.href.endsWith('%s')" % event)
    send("GET", fhir + "/Patient?name=%3Cscript%3E")
    browser.until("document.querySelector('#reads tbody tr')?.textContent.includes('search-type')")
    assert browser.js("document.querySelectorAll('#events tbody tr').length") == before + 1
    # By keyboard: the filter, then the event, then back.
    browser.js("document.querySelector('input[name=status]').focus()")
    browser.keys("4xx")
    browser.press("Enter", 13)
    browser.until("location.search.includes('status=4xx') && document.querySelectorAll('#events tbody tr').length === 1")
    browser.js("document.querySelector('#events tbody a').focus()")
    browser.press("Enter", 13)
    browser.until("location.pathname.endsWith('%s') && document.querySelector('.issues') !== null" % refused)
    assert "unknown resource type" in browser.js("document.querySelector('.issues').textContent")
    assert "curl -g" in browser.js("document.querySelector('#curl pre').textContent")
    # From there it is sent again, which is another event.
    browser.js("[...document.querySelectorAll('button')].find((b) => b.textContent === 'Send again').click()")
    browser.until("location.pathname.includes('/events/') && !location.pathname.endsWith('%s')" % refused)
    # What is stored is found by the form, and a reference leads on; the narrative stays in its frame.
    browser.open(url + "/sims/lab__one/resources/Observation")
    browser.js("document.querySelector('input[name=p]').focus()")
    browser.keys("subject")
    browser.js("document.querySelector('input[name=v]').focus()")
    browser.keys("Patient/p")
    browser.press("Enter", 13)
    # The page before has the link, too: it is the answer that is waited for.
    browser.until("location.search.includes('Patient') && document.readyState === 'complete' && document.querySelector('td a[href$=\"/resources/Observation/o\"]') !== null")
    browser.js("document.querySelector('td a[href$=\"/resources/Observation/o\"]').click()")
    browser.until("document.querySelector('.json a[href$=\"/resources/Patient/p\"]') !== null")
    browser.js("document.querySelector('.json a').click()")
    browser.until("document.querySelector('svg.graph a[href$=\"/resources/Observation/o\"]') !== null")
    browser.until("document.querySelector('iframe[sandbox=\"\"]').srcdoc.includes('<div')")
    assert browser.js("document.querySelector('iframe').contentDocument === null"), "the frame is of this page's origin"
    # The first page counts on.
    browser.open(url + "/")
    counted = int(browser.js("document.querySelector('[data-events=\"lab__one\"]').textContent"))
    send("PUT", fhir + "/Basic/counted", {"resourceType": "Basic", "id": "counted"})
    browser.until("Number(document.querySelector('[data-events=\"lab__one\"]').textContent) === %d" % (counted + 1))
    # A snapshot, and back to it.
    browser.open(url + "/sims/lab__one")
    browser.js("document.querySelector('input[name=snapshot]').focus()")
    browser.keys("loaded")
    browser.press("Enter", 13)
    browser.until("[...document.querySelectorAll('td')].some((td) => td.textContent === 'loaded')")
    send("DELETE", fhir + "/Patient/p")
    browser.until("[...document.querySelectorAll('button')].some((b) => b.textContent === 'Reset to it')")
    browser.js("[...document.querySelectorAll('button')].find((b) => b.textContent === 'Reset to it').click()")
    end = time.monotonic() + SECONDS
    while send("GET", fhir + "/Patient/p")[0] != 200:
        assert time.monotonic() < end
    assert browser.js("window.hacked === undefined") and not browser.dialogs
    print("the pages do what they say, run nothing that was sent, and can be read and used by all")


if __name__ == "__main__":
    main()
