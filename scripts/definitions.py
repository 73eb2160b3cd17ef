#!/usr/bin/env python3
"""Distils the FHIR definition packages of the npm registry into the tables under src/fhir/definitions/.

    scripts/definitions.py [--packages DIR]     # DIR keeps the downloaded packages; default: a temporary folder

Needs Python 3.9+ and npm. The tables carry facts only (names, types, cardinalities, expressions, codes), one record a
line, fields separated by tabs:

    <version>.elements.tsv
        T  name  base  kind                      a type: kind is resource, complex, primitive; `!` in front: abstract
        E  path  cardinality  types  codes       an element of the type above; path without the type's name; `s` after the
                                                 cardinality: in summaries, `m`: modifies the meaning; types joined by `|`;
                                                 `#path` is a content reference; codes names a V record
        V  name  system code code ...            a value set bound as required: groups joined by `;`, `*` for all of a system
    <version>.search.tsv
        S  code  type  bases  id  targets  expression  components      lists are joined by `,`; a component is id=expression
        C  compartment  type  parameters         which resources are in a compartment, by which parameters
    <version>.terminology.tsv
        Y  url  code code>parent ...             a code system that is complete and small
        W  url  system code code ...             a value set without filters: groups joined by `;`, `*` for all of a system
"""
import argparse
import glob
import json
import os
import re
import subprocess
import tarfile
import tempfile

PACKAGES = {
    "stu3": "hl7.fhir.r3.examples@3.0.2",
    "r4": "hl7.fhir.r4.examples@4.0.1",
    "r4b": "hl7.fhir.r4b.core@4.3.0",
    "r5": "hl7.fhir.r5.core@5.0.0",
}
# Code systems that the version's own value sets include and its package does not hold.
ELSEWHERE = {"r5": "hl7.terminology.r5@7.0.1"}
WANTED = ("StructureDefinition-", "SearchParameter-", "ValueSet-", "CodeSystem-", "CompartmentDefinition-")
CORE = "http://hl7.org/fhir/StructureDefinition/"
# Value sets that are all of a system, whose codes nobody lists but a grammar or a standard knows; formats may be named in short, too.
WHOLE = {
    "http://www.rfc-editor.org/bcp/bcp13.txt": ("mimetypes", "urn:ietf:bcp:13"),
    "http://hl7.org/fhir/ValueSet/mimetypes": ("mimetypes", "urn:ietf:bcp:13"),
    "http://hl7.org/fhir/ValueSet/all-languages": ("all-languages", "urn:ietf:bcp:47"),
    "http://hl7.org/fhir/ValueSet/currencies": ("currencies", "urn:iso:std:iso:4217"),
}
FORMATS = ["json", "xml", "ttl"]
# A value set longer than this tells a tester nothing that its system would not.
MOST_CODES = 400


def package(spec, folder):
    name, version = spec.rsplit("@", 1)
    path = os.path.join(folder, "%s-%s.tgz" % (name, version))
    if not os.path.exists(path):
        subprocess.run(["npm", "pack", "--silent", spec], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    found = {}
    with tarfile.open(path) as tar:
        for member in tar:
            base = os.path.basename(member.name)
            if base.endswith(".json") and base.startswith(WANTED):
                try:
                    resource = json.load(tar.extractfile(member))
                except ValueError:
                    continue
                found.setdefault(resource.get("resourceType"), []).append(resource)
    return found


def with_systems(found, other):
    """Adds the code systems of `other` that the value sets of `found` include and `found` lacks."""
    own = {c.get("url") for c in found["CodeSystem"]}
    included = {inc.get("system") for vs in found["ValueSet"] for inc in vs.get("compose", {}).get("include", [])}
    found["CodeSystem"] += [c for c in other["CodeSystem"] if c.get("url") in included - own]


def type_code(t):
    """The FHIR type an ElementDefinition.type names; FHIRPath system types become the primitive they stand for."""
    for ext in t.get("extension", []) + t.get("_code", {}).get("extension", []):
        if ext.get("url", "").endswith("structuredefinition-fhir-type"):
            return ext.get("valueUrl") or ext.get("valueUri")
    code = t.get("code", "")
    if code.startswith("http://hl7.org/fhirpath/System."):
        return code.rsplit(".", 1)[1].lower()
    return code or "string"


def codes_of(url, valuesets, systems, depth=0):
    """[(system, [codes])] of a value set, or None where facts at hand do not enumerate it."""
    vs = valuesets.get(url.split("|")[0])
    if vs is None or depth > 5:
        return None
    groups = []
    compose = vs.get("compose", {})
    if compose.get("exclude"):
        return None
    for inc in compose.get("include", []):
        if inc.get("filter"):
            return None
        if inc.get("concept"):
            groups.append((inc["system"], [c["code"] for c in inc["concept"]]))
        elif inc.get("system"):
            cs = systems.get(inc["system"])
            if cs is None or cs.get("content") not in (None, "complete"):
                return None
            flat, todo = [], list(cs.get("concept", []))
            while todo:
                c = todo.pop(0)
                flat.append(c["code"])
                todo = c.get("concept", []) + todo
            groups.append((inc["system"], flat))
        for other in inc.get("valueSet", []):
            sub = codes_of(other, valuesets, systems, depth + 1)
            if sub is None:
                return None
            groups += sub
    return groups or None


def elements(found, out):
    valuesets = {v["url"]: v for v in found["ValueSet"] if "url" in v}
    systems = {c["url"]: c for c in found["CodeSystem"] if "url" in c}
    used = {}
    structures = []
    for sd in found["StructureDefinition"]:
        if sd.get("derivation") == "constraint" or sd.get("kind") == "logical" or not sd["url"].startswith(CORE):
            continue
        if "<" in sd.get("name", "") or "snapshot" not in sd:
            continue
        structures.append(sd)
    for sd in sorted(structures, key=lambda s: (s["kind"], s["id"])):
        kind = {"resource": "resource", "complex-type": "complex", "primitive-type": "primitive"}[sd["kind"]]
        name = sd["id"]
        base = (sd.get("baseDefinition") or "").rsplit("/", 1)[-1]
        out.append("T\t%s\t%s\t%s%s" % (name, base, "!" if sd.get("abstract") else "", kind))
        if kind == "primitive":
            continue
        for el in sd["snapshot"]["element"]:
            path = el["path"].split(".", 1)
            if len(path) == 1:
                continue
            if el.get("contentReference"):
                types = "#" + el["contentReference"].split("#", 1)[1].split(".", 1)[1]
            else:
                types = "|".join(dict.fromkeys(type_code(t) for t in el.get("type", [])))
            bound = ""
            b = el.get("binding", {})
            target = b.get("valueSet") or b.get("valueSetUri") or b.get("valueSetReference", {}).get("reference")
            if b.get("strength") == "required" and target and types in ("code", "Coding", "CodeableConcept"):
                url = target.split("|")[0]
                groups = codes_of(url, valuesets, systems)
                if url in WHOLE:
                    bound, system = WHOLE[url]
                    used[bound] = [(system, ["*"])]
                    # Allowed by its comment there, by all examples here.
                    if el["path"] == "CapabilityStatement.format" or el["path"].startswith("TestScript."):
                        bound = "formats"
                        used[bound] = [(system, FORMATS + ["*"])]
                elif groups and sum(len(c) for _, c in groups) <= MOST_CODES:
                    bound = url.rsplit("/", 1)[-1]
                    used[bound] = groups
            flags = ("s" if el.get("isSummary") else "") + ("m" if el.get("isModifier") else "")
            line = "E\t%s\t%s%s%s\t%s" % (path[1], el["min"], "*" if el["max"] == "*" else el["max"], flags, types)
            out.append(line + ("\t" + bound if bound else ""))
    for name in sorted(used):
        merged = {}
        for system, codes in used[name]:
            merged.setdefault(system, []).extend(codes)
        out.append("V\t%s\t%s" % (name, ";".join(s + " " + " ".join(dict.fromkeys(c)) for s, c in merged.items())))


def one_line(text):
    return re.sub(r"\s+", " ", text or "").strip()


def search(found, out):
    resources = {sd["id"] for sd in found["StructureDefinition"] if sd.get("kind") == "resource" and sd.get("derivation") != "constraint"}
    seen = set()
    prefix = "http://hl7.org/fhir/SearchParameter/"
    for sp in sorted(found["SearchParameter"], key=lambda s: (s.get("code", ""), s["id"])):
        if not sp.get("url", "").startswith(prefix) or sp["id"].startswith("example"):
            continue
        if sp["code"] in ("_query", "_filter", "_in", "_text", "_content", "_list", "_type", "_has"):
            continue
        if not sp.get("expression") and sp.get("type") != "special":
            continue
        bases = [b for b in sp["base"] if b in resources]
        if not bases or (sp["code"], tuple(bases)) in seen:
            continue
        seen.add((sp["code"], tuple(bases)))
        parts = []
        for c in sp.get("component", []):
            d = c["definition"]
            d = d["reference"] if isinstance(d, dict) else d
            parts.append("%s=%s" % (d.rsplit("/", 1)[-1], one_line(c["expression"])))
        if sp["id"] == "DocumentReference-relationship" and len(parts) == 2:
            # The published definition names the two components the wrong way round.
            (a, x), (b, y) = (p.split("=") for p in parts)
            if (a.endswith("relatesto"), x) == (True, "code"):
                parts = ["%s=%s" % (a, y), "%s=%s" % (b, x)]
        out.append("\t".join(["S", sp["code"], sp["type"], ",".join(bases), sp["url"][len(prefix):], ",".join(sp.get("target", [])),
                              one_line(sp.get("expression")), ",".join(parts)]).rstrip("\t"))
    for cd in sorted(found["CompartmentDefinition"], key=lambda c: c["code"]):
        if "example" in cd["id"]:
            continue
        for r in cd["resource"]:
            if r.get("param"):
                out.append("C\t%s\t%s\t%s" % (cd["code"], r["code"], ",".join(r["param"])))


def concepts(code_system):
    """["code" or "code>parent"] of a small complete code system, or None."""
    if code_system.get("content") not in (None, "complete") or not code_system.get("concept"):
        return None
    words, todo = [], [(c, "") for c in code_system["concept"]]
    while todo:
        concept, parent = todo.pop(0)
        parents = [parent] if parent else []
        parents += [p.get("valueCode") for p in concept.get("property", []) if p.get("code") in ("parent", "subsumedBy") and p.get("valueCode")]
        words += [concept["code"] + (">" + p if p else "") for p in (parents or [""])]
        todo = [(c, concept["code"]) for c in concept.get("concept", [])] + todo
    if len(words) > MOST_CODES or any(" " in w or ";" in w for w in words):
        return None
    return words


def groups_of(value_set, systems):
    """["system code ..." or "system *"] of a value set without filters, or None."""
    compose = value_set.get("compose", {})
    if compose.get("exclude"):
        return None
    groups = []
    for inc in compose.get("include", []):
        codes = [c["code"] for c in inc.get("concept", [])]
        if inc.get("filter") or inc.get("valueSet") or not inc.get("system") or len(codes) > MOST_CODES or any(" " in c or ";" in c for c in codes):
            return None
        if not codes and inc["system"] not in systems:
            return None
        groups.append(inc["system"] + " " + (" ".join(codes) or "*"))
    return groups or None


def terminology(found, out):
    small = {}
    for cs in sorted(found["CodeSystem"], key=lambda c: c.get("url", "")):
        words = concepts(cs) if "url" in cs and "example" not in cs["id"] else None
        if words and cs["url"] not in small:
            small[cs["url"]] = words
            out.append("Y\t%s\t%s" % (cs["url"], " ".join(words)))
    seen = set()
    for vs in sorted(found["ValueSet"], key=lambda v: v.get("url", "")):
        groups = groups_of(vs, small) if "url" in vs and "example" not in vs["id"] and vs["url"] not in seen else None
        if groups:
            seen.add(vs["url"])
            out.append("W\t%s\t%s" % (vs["url"], ";".join(groups)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", help="where downloaded packages are kept")
    folder = parser.parse_args().packages
    target = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src", "fhir", "definitions")
    with tempfile.TemporaryDirectory() as temporary:
        for version, spec in PACKAGES.items():
            found = package(spec, folder or temporary)
            if version in ELSEWHERE:
                with_systems(found, package(ELSEWHERE[version], folder or temporary))
            for name, make in (("elements", elements), ("search", search), ("terminology", terminology)):
                lines = ["# %s of %s; made by scripts/definitions.py" % (name, spec)]
                make(found, lines)
                with open(os.path.join(target, "%s.%s.tsv" % (version, name)), "w", encoding="utf-8") as f:
                    f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
