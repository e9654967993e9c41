"""The chart's backups and restore, in pods: NATS loses its disk, and everything is there and goes on."""

import pytest

from e2e import volume, waits
from e2e.marks import Marks, drills, notes
from e2e.place import Place
from e2e.release import CHART, Release
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.timeout(900)

ENDED, WAITING = 12, 8
KEY = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "backup-key"},
    "stringData": {"backup.key": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="},
}
VALUES = {"backup__keySecret": "backup-key", "backup__destination__claimName": "archives"}


def test_a_release_restores_itself_after_nats_lost_its_disk(
    galley: Release, kubectl: Kubectl, place: Place, marks: Marks
) -> None:
    volume.add(kubectl, galley.namespace, "archives")
    kubectl.apply(KEY, namespace=galley.namespace)
    place.apply(*drills(), *notes(ENDED))
    place.all_in("Succeeded", ENDED)
    kubectl("scale", "taskqueue", "drills", "-n", place.namespace, "--replicas=0")
    place.until("no workers", lambda: not place.workers(), within=waits.WORKERS_GONE)
    place.apply(*notes(WAITING, prefix="waits"))
    place.until("tasks queued", lambda: place.phases()["Queued"] == WAITING, within=waits.TASKS_ENDED)
    try:
        galley.install(CHART, backup__enabled="true", **VALUES)
        kubectl("create", "job", "now", "-n", galley.namespace, "--from=cronjob/galley-backup")
        finished(galley, kubectl, place, "job/now")
        galley.install(CHART, operator__replicas="0", **VALUES)
        volume.wipe(kubectl, galley.namespace)
        galley.install(CHART, operator__replicas="0", backup__restore__archive="latest", **VALUES)
        [name] = kubectl("get", "job", "-n", galley.namespace, *LABELLED, "-o", "name").split()
        finished(galley, kubectl, place, name)
    finally:
        galley.install()
    assert not kubectl("get", "job", "-n", galley.namespace, *LABELLED, "-o", "name").split()
    patch = '{"spec": {"scaling": {"workers": null}}}'
    kubectl("patch", "taskqueue", "drills", "-n", place.namespace, "--type=merge", "--patch", patch)
    place.all_in("Succeeded", ENDED + WAITING)
    marks.once_each(ENDED + WAITING)


LABELLED = ("--selector", "app.kubernetes.io/name=galley-restore")


def finished(galley: Release, kubectl: Kubectl, place: Place, job: str) -> None:
    """Wait until a Job is done; one that fails says why in its log."""

    def done() -> bool:
        status = kubectl.get(job, "-n", galley.namespace)["status"]
        log = kubectl("logs", "-n", galley.namespace, job, "--tail=5") if status.get("failed") else ""
        assert not status.get("failed"), log
        return bool(status.get("succeeded"))

    place.until(f"{job} is done", done, within=waits.TASKS_ENDED)
