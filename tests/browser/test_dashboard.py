"""The dashboard in a real browser: each page, each action, a lost connection, a user without rights."""

import json
import os
import urllib.request
from collections.abc import Callable
from typing import Any, Final

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.conftest import NAMESPACE, Site
from tests.support.chromium import CONTRAST, PICTURES, WIDTHS, picture, resize
from tests.support.evil_namespace import SHOWS

EVIL: Final = "</pre><script>window.evil=1</script><img src=x onerror='window.evil=1'>\"'&"

RUNS: Final = "main script, img, iframe, object, embed, [onerror], a[href^='javascript:' i]"
"""What must not come of anything that others write."""

# The limit is that of a test alone: the first one installs the browser, and apt must not be killed halfway.
pytestmark = pytest.mark.timeout(240, func_only=True)


def ask(site: Site, method: str, path: str, body: Any = None) -> Any:
    """Send a request to the API."""
    request = urllib.request.Request(
        f"{site.address}/api/v1/namespaces/{NAMESPACE}/queues/drills{path}",
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def submit(site: Site, task_id: str, handler: str = "echo", wait: bool = True, **task: Any) -> None:
    ask(site, "POST", "/tasks", {"handler": handler, "id": task_id, **task})
    if wait:
        ask(site, "GET", f"/tasks/{task_id}/wait?seconds=40")


def until(browser: webdriver.Chrome, condition: Callable[[], Any], why: str = "") -> Any:
    """Wait until a condition of the page holds."""
    return WebDriverWait(browser, 20, 0.1, ignored_exceptions=[Exception]).until(lambda _: condition(), why)


def text_of(browser: webdriver.Chrome) -> str:
    return str(browser.execute_script("return document.body.innerText"))


def click(browser: webdriver.Chrome, path: str) -> None:
    """Click on an element, which the page may replace at that moment."""

    def clicked() -> bool:
        browser.find_element(By.XPATH, path).click()
        return True

    until(browser, clicked, path)


def until_shown(browser: webdriver.Chrome, text: str) -> None:
    """Wait until a page shows a text."""
    until(browser, lambda: text in text_of(browser), text)


def press(browser: webdriver.Chrome, label: str, confirm: bool = False) -> None:
    """Press a button, and agree to its question if it has one."""
    # What was said of the button before is no answer.
    browser.execute_script("for (const each of document.querySelectorAll('.said')) each.remove()")
    click(browser, f"//main//button[starts-with(normalize-space(), '{label}')]")
    if confirm:
        until(browser, lambda: browser.switch_to.alert, "a question").accept()
    until(browser, lambda: browser.find_element(By.CSS_SELECTOR, ".said"), f"{label} is done")


OUTSIDE: Final = """
return [...document.querySelectorAll("header a, header button, nav a, main > form")].filter((each) => {
  const box = each.getBoundingClientRect();
  return each.checkVisibility() && !each.matches(".skip") && (box.left < 0 || box.right > innerWidth);
}).map((each) => each.textContent.trim());
"""
"""Returns what of the navigation can only be reached by moving the page to the side."""

PAGES: Final = {
    "queues": "", "queue": "/drills", "tasks": "/drills/tasks", "task": "/drills/tasks/evil",
    "dead-letters": "/drills/dead-letters", "schedules": "/drills/schedules", "workers": "/drills/workers",
    "workflows": "/drills/workflows", "workflow": "/drills/workflows/shop-order",
    "topics": "/../topics", "topic": "/../topics/readings", "missed": "/../topics/alarms",
    "no-queue": "/nothing", "no-page": "/../nowhere",
    "failed-task": "/drills/tasks/dead", "no-tasks": "/drills/tasks?search=zzz",
    "audit": "/../audit", "step": "/drills/tasks/flow_shop-order_1", "bare-queue": "/bare",
    "bare-tasks": "/bare/tasks", "bare-dead": "/bare/dead-letters", "bare-workflows": "/bare/workflows",
    "bare-schedules": "/bare/schedules", "bare-workers": "/bare/workers", "no-audit": "/../audit?user=zzz",
    "empty": "/../../empty/queues", "empty-topics": "/../../empty/topics",
    "empty-audit": "/../../empty/audit",
}  # fmt: skip


def test_each_page_shows_what_is_there_and_nothing_in_it_is_code(
    site: Site, browser: webdriver.Chrome
) -> None:
    submit(site, "evil", input={"value": EVIL}, labels={"team": "billing"})
    submit(site, "dead", "fail", input={"message": EVIL}, retry={"attempts": 1})
    ask(site, "PUT", "/schedules/nightly", {
        "task": {"handler": "echo", "input": {"value": EVIL}}, "repeat": {"cron": "0 3 * * *"},
    })  # fmt: skip
    ask(site, "POST", "/workflows", {"id": "shop-order", "steps": [
        {"name": "charge", "handler": "echo", "input": {"value": EVIL}},
        {"name": "pack", "handler": "fail", "input": {"message": EVIL}, "retry": {"attempts": 1},
         "dependsOn": ["charge"]},
        *({"name": f"page-{number}", "handler": "echo", "dependsOn": ["charge"]} for number in range(9)),
        {"name": "ship", "handler": "echo", "dependsOn": ["pack", "page-0"]},
    ]})  # fmt: skip
    shown = {
        "workflows": "shop-order", "workflow": "Run the rest", "topics": "readings",
        "topic": "attributes.region", "missed": "2 not copied in time",
        "queues": "drills", "queue": "Why these workers", "tasks": "evil", "task": EVIL.replace('"', '\\"'),
        "dead-letters": EVIL, "schedules": "nightly", "workers": "w1", "no-queue": "there is no queue",
        "no-page": "There is nothing at that path",
        "failed-task": EVIL, "no-tasks": "No task fits",
    }  # fmt: skip
    shown |= {
        "audit": "submit", "step": "shop-order", "bare-queue": "neither an operator",
        "bare-tasks": "No tasks yet", "bare-dead": "No dead letters", "bare-workflows": "No workflows",
        "bare-schedules": "No schedules", "bare-workers": "No worker has been heard",
        "no-audit": "No line fits", "empty": "No queues", "empty-topics": "No topics",
        "empty-audit": "Nothing was done yet",
    }  # fmt: skip
    titles = set()
    for name, path in PAGES.items():
        resize(browser, WIDTHS[0])
        browser.get(site.page(path))
        until_shown(browser, shown[name])
        assert browser.execute_script("return window.evil") is None, name
        assert browser.execute_script("return document.images.length") == 0, name
        titles.add(browser.title)
        for theme in ("light", "dark"):
            browser.execute_script(f"document.documentElement.dataset.theme = '{theme}'")
            assert browser.execute_script(CONTRAST) == [], (name, theme)
            if theme == "dark" and PICTURES not in os.environ:
                continue  # colours change no width
            for width in WIDTHS:
                resize(browser, width)
                beyond = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
                assert beyond <= 0, (name, width)
                assert browser.execute_script(OUTSIDE) == [], (name, width)
                picture(browser, f"{name}-{theme}-{width}")
    # Which page a tab of the browser shows is in its title; an empty page has that of a full one.
    assert len(titles) >= 20, sorted(titles)
    lines = browser.get_log("browser")  # type: ignore[no-untyped-call]
    severe = [line for line in lines if line["level"] == "SEVERE"]
    assert [line for line in severe if "404" not in line["message"]] == []


def test_nothing_that_others_write_runs_on_a_page_or_in_its_updates(
    site: Site, evil_room: str, browser: webdriver.Chrome
) -> None:
    resize(browser, WIDTHS[0])
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    for path in SHOWS:
        browser.get(f"{site.address}/ui/{evil_room}{path}")
        # All that is shown comes again, as an update: from the stream, through the script of the page.
        browser.execute_script(
            "window.full = [...document.querySelectorAll('[data-part]')];"
            "full = full.filter((part) => part.textContent.trim());"
            "for (const part of full) { sent.set(part.id, ''); part.textContent = ''; } connect();"
        )
        until(browser, lambda: browser.execute_script(
            "return full.length && full.every(({ id }) => document.getElementById(id).textContent.trim());"
        ), f"an update of {path}")  # fmt: skip
        if path.endswith("/workers"):
            until_shown(browser, "[heartbeat]")
        assert browser.execute_script("return window.evil") is None, path
        assert browser.find_elements(By.CSS_SELECTOR, RUNS) == [], path
        for width in reversed(WIDTHS):
            resize(browser, width)
            assert browser.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0, (
                path, width,
            )  # fmt: skip
    lines = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [line for line in lines if line["level"] == "SEVERE"] == []


def test_a_page_goes_on_by_itself_and_keeps_its_place(site: Site, browser: webdriver.Chrome) -> None:
    resize(browser, WIDTHS[0])
    browser.get(site.page("/drills/tasks"))
    browser.execute_script("window.same = 1")
    search = browser.find_element(By.NAME, "search")
    search.send_keys("half a wo")
    submit(site, "live-one", wait=False)
    until(browser, lambda: "live-one" in text_of(browser), "the new task is shown")
    until(browser, lambda: browser.find_element(
        By.XPATH, "//tr[contains(., 'live-one')]//span[contains(@class, 'succeeded')]"
    ), "its end is shown")  # fmt: skip
    assert browser.execute_script("return window.same") == 1
    assert search.get_attribute("value") == "half a wo"


def test_each_action_does_what_its_button_says(site: Site, browser: webdriver.Chrome) -> None:
    resize(browser, WIDTHS[0])
    browser.get(site.page("/drills"))
    press(browser, "Pause", confirm=True)
    assert ask(site, "GET", "")["paused"] is True
    press(browser, "Resume")
    assert ask(site, "GET", "")["paused"] is False

    submit(site, "to-cancel", wait=False, notBefore="2090-01-01T00:00:00Z")
    browser.get(site.page("/drills/tasks/to-cancel"))
    press(browser, "Cancel", confirm=True)
    assert ask(site, "GET", "/tasks/to-cancel")["phase"] == "Cancelled"

    for task in ("again", "drop-me", "all-1", "all-2"):
        submit(site, task, "fail", retry={"attempts": 1})
    browser.get(site.page("/drills/tasks/again"))
    press(browser, "Retry")
    browser.get(site.page("/drills/dead-letters"))
    row = "//tr[contains(., 'drop-me')]//button[starts-with(normalize-space(), 'Drop')]"
    click(browser, row)
    until(browser, lambda: browser.switch_to.alert).accept()
    until(browser, lambda: "is deleted" in text_of(browser))
    letters = [each["id"] for each in ask(site, "GET", "/dead-letters")["deadLetters"]]
    assert "drop-me" not in letters
    assert "all-1" in letters
    press(browser, "Redrive all", confirm=True)

    ask(site, "PUT", "/schedules/weekly", {"task": {"handler": "echo"}, "repeat": {"cron": "@weekly"}})
    browser.get(site.page("/drills/schedules"))
    line = "//tr[contains(., 'weekly')]//button[starts-with(normalize-space(), '{}')]"
    for label, state in (("Suspend", True), ("Resume", False)):
        click(browser, line.format(label))
        until(browser, lambda: browser.find_element(By.CSS_SELECTOR, ".said"))
        assert ask(site, "GET", "/schedules/weekly")["suspended"] is state
        browser.get(site.page("/drills/schedules"))
    before = ask(site, "GET", "/tasks?handler=echo")["total"]
    click(browser, line.format("Run now"))
    until(browser, lambda: ask(site, "GET", "/tasks?handler=echo")["total"] == before + 1)

    browser.find_element(By.ID, "find-id").send_keys("to-cancel", Keys.ENTER)
    until(browser, lambda: browser.current_url.endswith("/tasks/to-cancel"))


def test_a_workflow_is_cancelled_and_its_rest_is_run(site: Site, browser: webdriver.Chrome) -> None:
    resize(browser, WIDTHS[2])
    ask(site, "POST", "/workflows", {"id": "slow-order", "steps": [
        {"name": "first", "handler": "echo"},
        {"name": "second", "handler": "aecho", "input": {"seconds": 600}, "dependsOn": ["first"]},
    ]})  # fmt: skip
    browser.get(site.page("/drills/workflows"))
    click(browser, "//a[contains(., 'slow-order')]")
    until(
        browser, lambda: browser.find_element(By.XPATH, "//*[local-name()='title'][. = 'first: Succeeded']")
    )
    press(browser, "Cancel", confirm=True)
    assert ask(site, "GET", "/workflows/slow-order")["phase"] == "Cancelled"
    press(browser, "Run the rest")
    following = ask(site, "GET", "/workflows/slow-order")["continuedBy"]
    click(browser, f"//a[contains(., '{following}')]")
    until_shown(browser, "slow-order")
    press(browser, "Cancel", confirm=True)
    assert ask(site, "GET", f"/workflows/{following}")["phase"] == "Cancelled"
    # The lines of the audit name each of these.
    browser.get(site.page(f"/../audit?task={following}"))
    until_shown(browser, "cancel")


def test_a_lost_connection_is_shown_and_comes_back(site: Site, browser: webdriver.Chrome) -> None:
    browser.get(site.page("/drills/tasks"))
    state = browser.find_element(By.ID, "link-state")
    until(browser, lambda: not state.is_displayed())
    site.stop()
    try:
        until(browser, state.is_displayed, "the page says that the connection is lost")
        assert state.text == "connection lost"
    finally:
        site.start()
    submit(site, "after-the-loss", wait=False)
    until(browser, lambda: "after-the-loss" in text_of(browser), "the page goes on")
    until(browser, lambda: not state.is_displayed())


def test_the_keyboard_reaches_everything(site: Site, browser: webdriver.Chrome) -> None:
    resize(browser, WIDTHS[2])
    browser.get(site.page("/drills"))
    active = "return document.activeElement.textContent.trim() || document.activeElement.name"
    seen = []
    for _ in range(16):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        seen.append(browser.execute_script(active))
    assert seen[0] == "Skip to content"
    assert {"Galley", "id", "Find", "Tasks", "Dead letters", "Workers", "Pause"} <= set(seen)


def test_a_user_logs_in_and_can_do_no_more_than_look(readers: Site, browser: webdriver.Chrome) -> None:
    resize(browser, WIDTHS[0])
    browser.get(readers.page("/drills"))
    picture(browser, "login")
    browser.find_element(By.ID, "token").send_keys("wrong", Keys.ENTER)
    until(browser, lambda: "its token is not known" in text_of(browser))
    browser.find_element(By.ID, "token").send_keys("reader", Keys.ENTER)
    until(browser, lambda: browser.current_url.endswith(f"/ui/{NAMESPACE}/queues/drills"))
    assert browser.execute_script("return document.cookie") == ""
    buttons = browser.find_elements(By.CSS_SELECTOR, "main .actions button")
    assert [button.is_enabled() for button in buttons] == [False]
    # One that is pressed all the same is refused: the button is not what keeps it from happening.
    browser.execute_script(
        "const b = document.querySelector('main .actions button'); b.disabled = false;"
        "b.form.removeAttribute('data-confirm'); b.click()"
    )
    until(browser, lambda: "may not patch taskqueues" in text_of(browser))
    browser.get(f"{readers.address}/ui/elsewhere/queues")
    assert "may not list taskqueues" in text_of(browser)
    browser.get(readers.page(""))
    browser.find_element(By.XPATH, "//button[. = 'Log out']").click()
    until(browser, lambda: browser.current_url.endswith("/ui/login?ended=1"))
    assert "You are logged out here." in text_of(browser)
    browser.get(readers.page(""))
    assert "/ui/login" in browser.current_url


def test_a_person_logs_in_at_a_provider_and_comes_back_by_a_link(
    people: Site, site: Site, browser: webdriver.Chrome
) -> None:
    resize(browser, WIDTHS[0])
    browser.get(people.page("/drills"))
    picture(browser, "login-provider")
    click(browser, "//a[. = 'Log in with localhost']")
    click(browser, "//button[. = 'ada']")
    until(browser, lambda: browser.current_url == people.page("/drills"))
    until_shown(browser, "oidc:ada")
    assert browser.execute_script("return document.cookie") == ""
    # A link on a page of another site, such as that of an alert.
    browser.get(site.page("").replace("127.0.0.1", "localhost"))
    browser.execute_script(f"location.href = '{people.page('/drills/tasks?search=x')}'")
    until(browser, lambda: browser.current_url == people.page("/drills/tasks?search=x"))
    until_shown(browser, "oidc:ada")
    click(browser, "//button[. = 'Log out']")
    until_shown(browser, "You are logged out here.")
    picture(browser, "logged-out")
    assert browser.find_element(By.XPATH, "//a[contains(., 'Log out of localhost')]").is_displayed()
