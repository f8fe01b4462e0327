"""The window in a real browser, with a busy edge behind it: window_check.py EDGE AXE PICTURES [SECONDS]

Desktop and phone, light and dark: no complaint on the console, nothing that its policy has to stop, nothing that axe-core finds, no
scrolling sideways. The pictures are for people to look at; SECONDS (4) is how long the edge is busy before they are taken.
Prints one line a check; exits 1 when one of them fails.
"""

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from browser import Browser
from window_scene import Scene

EDGE, AXE, PICTURES = (Path(argument).resolve() for argument in sys.argv[1:4])
SECONDS = float(sys.argv[4]) if sys.argv[4:] else 4
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 780, "phone": True}}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
FAILED = []


def main():
    with ExitStack() as parts:
        scene = parts.enter_context(Scene(EDGE))
        scene.live(SECONDS)
        browser = parts.enter_context(Browser())
        for size, media in SIZES.items():
            for dark in (False, True):
                name = f"{size}-{'dark' if dark else 'light'}"
                look(name, browser.page(**media, dark=dark), scene.window)
        check("it follows the edge by itself", lambda: follows(browser.page(), scene))
        check("it is read without a script", lambda: unscripted(browser.page(), scene))
    print(f"{len(FAILED)} failed; pictures in {PICTURES}", flush=True)
    return 1 if FAILED else 0


def look(name, page, url):
    check(f"{name}: loads", lambda: expect(page.open(url).run("document.querySelectorAll('section').length") > 4, True))
    check(f"{name}: its script has run", lambda: expect(page.run("!!document.querySelector('header button')"), True))
    check(f"{name}: no complaint", lambda: expect(page.complaints(), []))
    check(f"{name}: nothing to scroll sideways", lambda: expect(page.run(WIDER), []))
    check(f"{name}: axe-core finds nothing", lambda: expect(axe(page), []))
    check(f"{name}: a picture", lambda: page.picture(PICTURES / f"{name}.png"))


def axe(page):
    page.run(AXE.read_text())
    found = page.run(f"axe.run({{runOnly: {json.dumps(RULES)}}})")
    if len(found["passes"]) < 15:
        raise AssertionError(f"axe-core had only {len(found['passes'])} rules to look at")
    return [f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}" for rule in found["violations"] for node in rule["nodes"]]


def follows(page, scene):
    """What happens after it was opened is on it soon."""
    page.open(scene.window)
    told = scene.refuse("/admin/after-it-was-opened")
    until(page, f"document.body.textContent.includes({json.dumps(told)})")
    expect(page.complaints(), [])


def unscripted(page, scene):
    page.send("Emulation.setScriptExecutionDisabled", value=True)
    page.open(scene.window)
    page.send("Emulation.setScriptExecutionDisabled", value=False)
    expect(page.run("document.querySelectorAll('svg').length") >= 3, True)
    expect(page.run("document.querySelector('header button')"), None)


def until(page, condition):
    end = time.monotonic() + 30
    while not page.run(condition):
        if time.monotonic() > end:
            raise AssertionError(f"never came true: {condition}")
        time.sleep(0.1)


def check(name, do):
    try:
        do()
        print(f"  ok      {name}", flush=True)
    except Exception as why:  # every check is to be tried
        FAILED.append(name)
        print(f"  FAILED  {name}: {type(why).__name__}: {why}", flush=True)


def expect(found, wanted):
    if found != wanted:
        raise AssertionError(f"{found!r} where {wanted!r} was expected")


# What reaches beyond the window's right edge, where the page could be pushed aside.
WIDER = """(() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const wide = [...document.body.querySelectorAll("*")].filter((one) => one.getBoundingClientRect().right > width + 1);
  return wide.map((one) => one.outerHTML.slice(0, 120)).concat("the page");
})()"""


if __name__ == "__main__":
    sys.exit(main())
