"""What axe-core, the checker of accessibility, finds in a page: https://github.com/dequelabs/axe-core"""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

GRAVE = ("serious", "critical")


def faults(page: Page, part: str | None = None) -> list[str]:
    """The serious and critical faults of a page, or of the parts that a selector names, one line each."""
    found = Axe().run(page, context=part, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{fault['id']} ({fault['impact']}), {len(fault['nodes'])} places, such as {fault['nodes'][0]['html'][:200]}"
        for fault in found
        if fault["impact"] in GRAVE
    ]
