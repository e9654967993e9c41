import pytest

from galley_operator.errors import UrlNotAllowed
from galley_operator.queues.consent import check_consent
from galley_operator.queues.url_rule import allows
from tests.support.memory_cluster import MemoryCluster
from tests.support.workers import a_task_queue

RULES = ("https://hooks.example.com/galley", "https://*.apps.example.com", "http://thumbs.shop.svc:8080/")


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/galley", "https://hooks.example.com/galley/tasks?a=b",
        "https://HOOKS.example.com:443/galley/x", "https://a.apps.example.com", "https://a.b.apps.example.com/x",
        "http://thumbs.shop.svc:8080/any/path", "https://a.apps.example.com./x",
    ],
)  # fmt: skip
def test_a_url_that_begins_as_a_rule_does_is_allowed(url: str) -> None:
    assert allows(RULES, url)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/galley", "https://hooks.example.com/galleys", "https://hooks.example.com/",
        "https://hooks.example.com:8443/galley", "https://hooks.example.com.evil.org/galley",
        "https://apps.example.com/", "https://evilapps.example.com/", "http://thumbs.shop.svc/",
        "https://hooks.example.com/galley/../admin", "https://hooks.example.com/galley/%2e%2e/admin",
        "https://hooks.example.com/galley/..%2fadmin", "https://hooks.example.com:99999/galley",
        "http://thumbs.shop.svc:8081/",
    ],
)  # fmt: skip
def test_any_other_is_not(url: str) -> None:
    assert not allows(RULES, url)


def test_without_rules_each_url_is_allowed() -> None:
    assert allows((), "http://anything:1/")


async def test_a_queue_that_names_another_url_is_refused_with_the_rules() -> None:
    handlers = {"http": [{"name": "resize", "url": "https://evil.org/", "secretName": "hooks"}]}
    queue = a_task_queue("shop", handlers=handlers)
    with pytest.raises(UrlNotAllowed) as refused:
        await check_consent(MemoryCluster(), queue, init_containers=False, urls=RULES)
    assert "'https://evil.org/'" in str(refused.value)
    assert "https://hooks.example.com/galley" in refused.value.hint
