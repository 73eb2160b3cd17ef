"""What docs/testing-with-fhirsim.md shows, and what the plugin promises."""

import threading

import pytest

from pytest_fhirsim import Refused


def register(base, family, server):
    """Stands for the system under test."""
    patient = {"resourceType": "Patient", "name": [{"family": family}]}
    return server.call("POST", base + "/Patient", patient)


def test_the_app_posts_a_patient(simulator):
    since = simulator.mark("start")
    app = threading.Thread(target=register, args=(simulator.base, "Chalmers", simulator.server))
    app.start()
    event = simulator.wait_for_event(since=since, type="Patient", status="201", request="name.family = 'Chalmers'")
    app.join()
    assert event["resources"][0]["change"] == "create"
    assert '"family": "Chalmers"' in simulator.bodies(event)["request"]["text"]


@pytest.fixture(scope="session")
def loaded(fhirsim_server):
    template = fhirsim_server.simulator("pytest__template")
    for n in range(5):
        template.fhir("PUT", "Patient/p%d" % n, {"resourceType": "Patient", "id": "p%d" % n, "active": True})
    return template.snapshot("loaded")


def test_every_test_begins_alike(fhirsim_server, loaded):
    for turn in range(3):
        simulator = fhirsim_server.simulator("pytest__turn", template=loaded)
        assert simulator.fhir("GET", "Patient?active=true&_summary=count")["total"] == 5
        simulator.fhir("DELETE", "Patient/p%d" % turn)
        assert simulator.fhir("GET", "Patient?active=true&_summary=count")["total"] == 4
    simulator.reset(loaded)
    assert simulator.fhir("GET", "Patient?active=true&_summary=count")["total"] == 5


@pytest.mark.fhirsim(fhir_version="R5", settings={"versioning": "versioned-update"})
def test_a_simulator_is_as_the_mark_says(simulator):
    assert simulator.fhir("GET", "metadata")["fhirVersion"].startswith("5.0")
    simulator.fhir("PUT", "Patient/p", {"resourceType": "Patient", "id": "p"})
    with pytest.raises(Refused, match="428"):
        simulator.fhir("PUT", "Patient/p", {"resourceType": "Patient", "id": "p"})


def test_the_app_tries_again(simulator):
    simulator.faults({"match": {"interaction": ["create"], "times": 1}, "preset": "unavailable"})
    with pytest.raises(Refused, match="503"):
        register(simulator.base, "First", simulator.server)
    register(simulator.base, "Second", simulator.server)
    assert [e["response"]["status"] for e in simulator.events(interaction="create")] == [201, 503]


def test_a_wait_for_nothing_says_what_there_was(simulator):
    register(simulator.base, "Other", simulator.server)
    with pytest.raises(AssertionError, match=r"no event within 50ms .*'create'"):
        simulator.wait_for_event(timeout="50ms", type="Observation")
