// Results show the sentences around the word that was found. A page that was opened from a file may not read the other
// files for that.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// What is wider than the screen scrolls in its own box; the keyboard has to reach the box to scroll it.
function reach() {
  for (const box of document.querySelectorAll(".table-wrapper, .output")) {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", "Wider than the page: scroll sideways");
    } else {
      box.removeAttribute("tabindex");
      box.removeAttribute("role");
      box.removeAttribute("aria-label");
    }
  }
}
addEventListener("load", reach);
addEventListener("resize", reach);
