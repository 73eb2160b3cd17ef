#!/usr/bin/env python3
"""Writes testkits/demo: six invented patients of one practice, as transaction Bundles.

    scripts/demo.py        # needs Python 3.9+; the same output every time

The first file is a batch that stores the practice, its practitioners and its places under identifiers; the patients'
Bundles refer to them by conditional references, as bulk exporters do.
"""
import json
import os
import random
import uuid
from datetime import datetime, timedelta

TARGET = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "testkits", "demo")
NPI = "http://fhirsim.example/practitioners"
ORG = "http://fhirsim.example/organizations"
MRN = "http://fhirsim.example/patients"
SCT = "http://snomed.info/sct"
LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
HL7 = "http://terminology.hl7.org/CodeSystem/"

PRACTITIONERS = [("D-100", "Adaeze", "Brandt", "female"), ("D-101", "Henrik", "Moreau", "male")]

PATIENTS = [
    dict(file="1-amara-okafor", mrn="M-0001", given=["Amara", "Ngozi"], family="Okafor", gender="female", birth="1984-03-12", city="Riverton", doctor=0,
         conditions=[("44054006", "Type 2 diabetes mellitus", "2016-05-20"), ("59621000", "Essential hypertension", "2018-09-03")],
         drugs=[("860975", "metformin hydrochloride 500 MG 24HR extended release oral tablet", "2016-05-20")], bmi=31.2, sys=141, dia=88, a1c=7.4, glucose=148),
    dict(file="2-jonas-lindqvist", mrn="M-0002", given=["Jonas"], family="Lindqvist", gender="male", birth="1957-11-30", city="Riverton", doctor=1,
         conditions=[("59621000", "Essential hypertension", "2009-02-11"), ("13645005", "Chronic obstructive lung disease", "2019-12-01")],
         drugs=[("314076", "lisinopril 10 MG oral tablet", "2009-02-11")], bmi=27.8, sys=152, dia=91, a1c=5.8, glucose=104),
    dict(file="3-mei-tanaka", mrn="M-0003", given=["Mei"], family="Tanaka", gender="female", birth="1996-07-04", city="Lakeside", doctor=0,
         conditions=[("195967001", "Asthma", "2004-04-15")],
         drugs=[("745679", "200 ACTUAT albuterol 0.09 MG/ACTUAT metered dose inhaler", "2015-06-01")], bmi=21.4, sys=112, dia=71, a1c=5.1, glucose=86),
    dict(file="4-tomas-novak", mrn="M-0004", given=["Tomáš"], family="Novák", gender="male", birth="1971-01-22", city="Lakeside", doctor=1,
         conditions=[("55822004", "Hyperlipidemia", "2014-10-10")],
         drugs=[("617312", "atorvastatin 20 MG oral tablet", "2014-10-10")], bmi=28.9, sys=128, dia=82, a1c=5.6, glucose=99),
    dict(file="5-lucia-ferreira", mrn="M-0005", given=["Lúcia", "Maria"], family="Ferreira", gender="female", birth="1990-09-17", city="Riverton", doctor=0,
         conditions=[("40930008", "Hypothyroidism", "2019-01-28")],
         drugs=[("966224", "levothyroxine sodium 0.05 MG oral tablet", "2019-01-28")], bmi=24.0, sys=118, dia=76, a1c=5.2, glucose=90),
    dict(file="6-noah-williams", mrn="M-0006", given=["Noah"], family="Williams", gender="male", birth="2017-05-08", city="Lakeside", doctor=1,
         conditions=[("65363002", "Otitis media", "2024-02-19")],
         drugs=[("308182", "amoxicillin 250 MG oral capsule", "2024-02-19")], bmi=15.9, sys=98, dia=61, a1c=5.0, glucose=82),
]


def code(system, value, display):
    return {"coding": [{"system": system, "code": value, "display": display}], "text": display}


def entry(resource, url):
    return {"fullUrl": url, "resource": resource, "request": {"method": "POST", "url": resource["resourceType"]}}


def practice():
    entries = []

    def add(resource, system, value):
        entries.append({"resource": resource, "request": {"method": "POST", "url": resource["resourceType"], "ifNoneExist": "identifier=%s|%s" % (system, value)}})

    add({"resourceType": "Organization", "identifier": [{"system": ORG, "value": "O-1"}], "active": True,
         "type": [code(HL7 + "organization-type", "prov", "Healthcare Provider")], "name": "Riverton Family Practice",
         "telecom": [{"system": "phone", "value": "+1 555 0100"}],
         "address": [{"line": ["12 Mill Lane"], "city": "Riverton", "state": "MA", "postalCode": "01001", "country": "US"}]}, ORG, "O-1")
    add({"resourceType": "Location", "identifier": [{"system": ORG, "value": "L-1"}], "status": "active", "name": "Riverton consulting rooms",
         "position": {"longitude": -72.589800, "latitude": 42.101500}}, ORG, "L-1")
    for npi, given, family, gender in PRACTITIONERS:
        add({"resourceType": "Practitioner", "identifier": [{"system": NPI, "value": npi}], "active": True,
             "name": [{"use": "official", "family": family, "given": [given], "prefix": ["Dr."]}], "gender": gender}, NPI, npi)
    return {"resourceType": "Bundle", "type": "batch", "entry": entries}


def patient_bundle(p):
    rnd = random.Random(p["mrn"])

    def urn():
        return "urn:uuid:" + str(uuid.UUID(int=rnd.getrandbits(128), version=4))

    me = urn()
    subject = {"reference": me, "display": "%s %s" % (" ".join(p["given"]), p["family"])}
    npi, given, family, _ = PRACTITIONERS[p["doctor"]]
    doctor = {"reference": "Practitioner?identifier=%s|%s" % (NPI, npi), "display": "Dr. %s %s" % (given, family)}
    organization = {"reference": "Organization?identifier=%s|O-1" % ORG, "display": "Riverton Family Practice"}
    entries = [entry({
        "resourceType": "Patient",
        "identifier": [{"use": "usual", "type": code(HL7 + "v2-0203", "MR", "Medical Record Number"), "system": MRN, "value": p["mrn"]}],
        "active": True,
        "name": [{"use": "official", "family": p["family"], "given": p["given"]}],
        "telecom": [{"system": "phone", "value": "+1 555 01%02d" % rnd.randrange(10, 99), "use": "home"}],
        "gender": p["gender"], "birthDate": p["birth"],
        "address": [{"use": "home", "line": ["%d Elm Street" % rnd.randrange(1, 200)], "city": p["city"], "state": "MA", "country": "US"}],
        "generalPractitioner": [doctor], "managingOrganization": organization}, me)]
    for sct, display, since in p["conditions"]:
        entries.append(entry({
            "resourceType": "Condition",
            "clinicalStatus": code(HL7 + "condition-clinical", "active", "Active"),
            "verificationStatus": code(HL7 + "condition-ver-status", "confirmed", "Confirmed"),
            "category": [code(HL7 + "condition-category", "problem-list-item", "Problem List Item")],
            "code": code(SCT, sct, display), "subject": subject, "onsetDateTime": since, "recordedDate": since}, urn()))
    for rx, display, since in p["drugs"]:
        entries.append(entry({
            "resourceType": "MedicationRequest", "status": "active", "intent": "order",
            "medicationCodeableConcept": code(RXNORM, rx, display), "subject": subject, "authoredOn": since, "requester": doctor}, urn()))
    for visit in range(3):
        start = datetime(2024, 2, 20, 9, 0) + timedelta(days=150 * visit + rnd.randrange(40), minutes=15 * rnd.randrange(24))
        here = urn()
        entries.append(entry({
            "resourceType": "Encounter", "status": "finished", "class": {"system": HL7 + "v3-ActCode", "code": "AMB", "display": "ambulatory"},
            "type": [code(SCT, "185349003", "Encounter for check up")], "subject": subject, "participant": [{"individual": doctor}],
            "period": {"start": start.isoformat() + "Z", "end": (start + timedelta(minutes=30)).isoformat() + "Z"},
            "serviceProvider": organization}, here))
        measured = (start + timedelta(minutes=10)).isoformat() + "Z"

        def observation(category, loinc, display, **value):
            entries.append(entry({
                "resourceType": "Observation", "status": "final",
                "category": [code(HL7 + "observation-category", category, category.replace("-", " ").title())],
                "code": code(LOINC, loinc, display), "subject": subject, "encounter": {"reference": here},
                "effectiveDateTime": measured, "issued": measured.replace("Z", ".000Z"), **value}, urn()))

        def quantity(value, unit, ucum):
            return {"value": value, "unit": unit, "system": UCUM, "code": ucum}

        drift = rnd.uniform(-0.04, 0.04)
        observation("vital-signs", "8867-4", "Heart rate", valueQuantity=quantity(rnd.randrange(58, 96), "beats/minute", "/min"))
        observation("vital-signs", "39156-5", "Body mass index (BMI) [Ratio]", valueQuantity=quantity(round(p["bmi"] * (1 + drift), 1), "kg/m2", "kg/m2"))
        observation("vital-signs", "85354-9", "Blood pressure panel", component=[
            {"code": code(LOINC, "8480-6", "Systolic blood pressure"), "valueQuantity": quantity(round(p["sys"] * (1 + drift)), "mmHg", "mm[Hg]")},
            {"code": code(LOINC, "8462-4", "Diastolic blood pressure"), "valueQuantity": quantity(round(p["dia"] * (1 + drift)), "mmHg", "mm[Hg]")}])
        observation("laboratory", "4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", valueQuantity=quantity(round(p["a1c"] * (1 + drift), 1), "%", "%"))
        observation("laboratory", "2339-0", "Glucose [Mass/volume] in Blood", valueQuantity=quantity(round(p["glucose"] * (1 + drift)), "mg/dL", "mg/dL"))
    observation("social-history", "72166-2", "Tobacco smoking status", valueCodeableConcept=code(SCT, *(
        ("8517006", "Ex-smoker") if p["mrn"] == "M-0002" else ("266919005", "Never smoked tobacco"))))
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def main():
    os.makedirs(TARGET, exist_ok=True)
    for name, bundle in [("0-practice", practice())] + [(p["file"], patient_bundle(p)) for p in PATIENTS]:
        with open(os.path.join(TARGET, name + ".json"), "w", encoding="utf-8") as f:
            json.dump(bundle, f, ensure_ascii=False, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
