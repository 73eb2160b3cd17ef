// Node 18 or later, nothing else: FHIRSIM_SERVER=http://127.0.0.1:8080 node --test testkits/javascript
import assert from "node:assert/strict";
import { test } from "node:test";

const server = process.env.FHIRSIM_SERVER ?? "http://127.0.0.1:8080";
const api = (method, path, body) => fetch(`${server}/api/sims${path}`, { method, body: body && JSON.stringify(body) });
const fhir = { "Content-Type": "application/fhir+json" };

// Stands for the system under test.
const register = (base, family) =>
  fetch(`${base}/Patient`, { method: "POST", headers: fhir, body: JSON.stringify({ resourceType: "Patient", name: [{ family }] }) });

test("the app posts a patient", async () => {
  const sim = "javascript__patient";
  await api("DELETE", `/${sim}`);
  const { base } = await (await api("POST", "", { id: sim })).json();
  await api("POST", `/${sim}/markers`, { name: "start" });
  const app = register(base, "Chalmers");
  const query = new URLSearchParams({ since: "marker:start", type: "Patient", request: "name.family = 'Chalmers'", wait: "30s" });
  const { events } = await (await api("GET", `/${sim}/events?${query}`)).json();
  assert.equal(events[0].response.status, 201);
  assert.equal((await app).headers.get("x-fhirsim-event"), events[0].event);
});
