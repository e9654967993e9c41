"""The chart: which values it refuses, and what it says of them."""

import re

import pytest

from docs.generate.chart import CHART
from e2e.rendered_chart import helm, rendered

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("nats.replicas=2", r"/nats/replicas.*must be one of 1, 3"),
        ("operator.replica=2", r"/operator.*additional properties 'replica' not allowed"),
        ("oprator.replicas=2", r"additional properties 'oprator' not allowed"),
        ("nats.storage.size=10GB", r"/nats/storage/size.*does not match pattern"),
        ("nats.syncInterval=sometimes", r"/nats/syncInterval.*does not match pattern"),
        (
            "operator.logLevel=debug",
            r"/operator/logLevel.*must be one of 'DEBUG', 'INFO'",
        ),
        ("operator.namespaces={Team_A}", r"/operator/namespaces/0.*does not match pattern"),
        ("crds.keep=yes", r"/crds/keep.*got string, want boolean"),
        ("operator.image.digest=abc", r"/operator/image/digest.*does not match pattern"),
        ("operator.replicas=-1", r"/operator/replicas.*minimum: got -1, want 0"),
        (
            "gateway.trustedProxies={proxy.example.com}",
            r"/gateway/trustedProxies/0.*does not match pattern",
        ),
        ("gateway.trustedProxies={0.0.0.0/0}", r"/gateway/trustedProxies/0.*does not match pattern"),
        ("gateway.trustedProxies={::/0}", r"/gateway/trustedProxies/0.*does not match pattern"),
        ("gateway.trustedProxies={10.0.0.0/33}", r"/gateway/trustedProxies/0.*does not match pattern"),
        ("gateway.trustedProxies={10.0.0.256}", r"/gateway/trustedProxies/0.*does not match pattern"),
        ("backup.schedule=hourly", r"/backup/schedule.*minLength"),
        ("backup.destination.url=gs://bucket", r"/backup/destination/url.*does not match pattern"),
        (
            "operator.resources.limits.memory=lots",
            r"limits.memory is lots, which is not a quantity",
        ),
        (
            "nats.resources.limits.memory=1gb",
            r"limits.memory is 1gb.*such as 500m for cpu, 512Mi",
        ),
        ("nats.resources.requests.memory=128m", r"is 128m, which is less than a mebibyte.*write Mi or Gi"),
        ("nats.resources.requests.memory=512", r"is 512, which is less than a mebibyte"),
        ("nats.image.tag=2.11.9-alpine", r"nats.image.tag is 2.11.9-alpine, but Galley needs NATS 2.12.2"),
        ("nats.image.tag=2.12.1", r"but Galley needs NATS 2.12.2 or newer"),
        ("nats.image.tag=2.11-alpine", r"but Galley needs NATS 2.12.2 or newer"),
        ("networkPolicy.clients[0].pods=all", r"/networkPolicy/clients/0.*'pods' not allowed"),
        ("nats.enabled=false", r"there is no NATS: set nats.url to the address of yours"),
        (
            "nats.auth.enabled=false,nats.auth.existingSecret=keys",
            r"nats.auth.enabled is false: set it to true",
        ),
        (
            "nats.enabled=false,nats.url=nats://mine:4222,nats.auth.enabled=true",
            r"make a Secret with account and account.seed, and name it in nats.auth.existingSecret",
        ),
        ("backup.enabled=true", r"backup.keySecret is empty: name a Secret .* keep a copy of it outside"),
        ("backup.enabled=true,backup.keySecret=k", r"backup.destination is empty: set claimName .* or url"),
        (
            "backup.enabled=true,backup.keySecret=k,backup.destination.url=s3://b,backup.destination.claimName=c",
            r"backup.destination has claimName and url",
        ),
        ("nats.tls.issuerRef.name=a,nats.tls.existingSecret=b", r"both say where the certificate comes from"),
        ("nats.tls.enabled=false,nats.tls.existingSecret=b", r"so no certificate is used"),
        ("nats.tls.plaintext=yes", r"/nats/tls/plaintext.*must be one of 'auto', 'allow', 'refuse'"),
        ("nats.encryption.key=0", r"/nats/encryption/key.*minimum"),
        ("nats.encryption.cipher=des", r"/nats/encryption/cipher.*must be one of"),
        (
            "nats.enabled=false,nats.url=nats://mine:4222,nats.auth.enabled=false,nats.tls.existingSecret=b",
            r"write it as tls://HOST:PORT",
        ),
        (
            "nats.enabled=false,nats.url=tls://mine:4222,nats.auth.enabled=false,nats.tls.issuerRef.name=b",
            r"issuerRef makes the certificate of the NATS of the chart",
        ),
        (
            "nats.enabled=false,nats.url=tls://mine:4222,nats.auth.existingSecret=k,nats.tls.clientCertificate=true",
            r"clientCertificate needs tls.crt and tls.key in a Secret",
        ),
        (
            "nats.enabled=false,nats.url=tls://mine:4222,nats.auth.enabled=false,"  # noqa: ISC004
            "nats.tls.clientCertificate=true,nats.tls.existingSecret=a",
            r"clientCertificate needs nats.auth.enabled",
        ),
        (
            "nats.enabled=false,nats.url=nats://mine:4222,nats.auth.enabled=false,nats.encryption.enabled=true",
            r"encrypt the streams in the configuration of yours",
        ),
        ("nats.url=nats://mine:4222", r"nats.enabled is true: set nats.enabled to false to use that NATS"),
    ],
)
def test_a_wrong_value_is_refused_and_named(setting: str, says: str) -> None:
    done = helm("template", "galley", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert re.search(says, done.stderr), done.stderr


@pytest.mark.parametrize(
    "setting",
    [
        "nats.image.tag=2.12.2",
        "nats.image.tag=2.12-alpine",
        "nats.image.tag=alpine",
        "nats.image.tag=v2.15.0-scratch",
        "nats.resources.limits.memory=1.5Gi",
        "nats.resources.requests.cpu=1",
        "operator.resources.limits.memory=536870912",
    ],
)
def test_what_is_large_or_new_enough_is_taken(setting: str) -> None:
    assert rendered(setting)
