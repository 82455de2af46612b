"""The frame around a widget: its title, how it wraps on a narrow page, and what it says when its kernel is gone.

ipywidgets has no setting for these, so the frame brings a style sheet, and a short script for the sliders. Where a page
keeps scripts out, the sliders work as ipywidgets made them.
"""

from __future__ import annotations

import html

import ipywidgets

FRAME = "mmlesson-widget"  # the class of every frame
GONE = "These controls do nothing now: their kernel was restarted or has ended. Run the cell again."
LAYOUT = {
    "border": "1px solid var(--jp-border-color2, #bbb)",
    "padding": "10px 14px",
    "margin": "4px 0",
    "overflow": "visible",
}

# JupyterLab gives the class `jupyter-widgets-disconnected` to what has lost its kernel, and a sign before it from a
# font that it no longer brings. `.mmlesson-scaled` is a slider with a scale below it.
STYLE = f"""
.{FRAME} .widget-box {{ overflow: visible; }}
.{FRAME} .widget-html-content {{ overflow-wrap: anywhere; min-width: 0; }}
.{FRAME} .widget-inline-hbox {{ flex-wrap: wrap; height: auto; row-gap: 2px; }}
.{FRAME} .widget-inline-hbox > :is(input, select, textarea) {{ flex: 1 1 9em; min-width: min(9em, 100%); }}
.{FRAME} .widget-inline-hbox > .slider-container {{ flex: 1 1 9em; min-width: min(9em, 60%); }}
.{FRAME} .mmlesson-scaled > .widget-label {{ flex: 0 0 100%; text-align: left; }}
.{FRAME} .widget-checkbox .widget-label-basic {{ white-space: normal; height: auto; }}
.{FRAME} .jupyter-button {{ height: auto; min-height: var(--jp-widgets-inline-height, 28px); white-space: normal; }}
.{FRAME} .noUi-handle:focus-visible {{ outline: 3px solid #1c6dd0; outline-offset: 2px; }}
.{FRAME} .mmlesson-gone {{ display: none; }}
.{FRAME}.jupyter-widgets-disconnected .mmlesson-gone {{ display: block; border-left: 4px solid #c25b00;
  padding-left: 10px; margin: 6px 2px; font-size: 1.15em; line-height: 1.5; }}
.{FRAME}.jupyter-widgets-disconnected::before,
.{FRAME} .jupyter-widgets-disconnected::before {{ content: none; }}
.{FRAME}.jupyter-widgets-disconnected :is(button, input, select, textarea, .noUi-target) {{
  opacity: 0.45; pointer-events: none; }}
"""

# A handle of ipywidgets' sliders has the role of a slider, but no name, and its value is the place on the track: of a
# logarithmic one the exponent. This gives it the words of its label and the number that stands beside it.
NAMES = f"""
const picture = this;
const find = (tries) => {{
  const box = picture.closest('.{FRAME}');
  if (!box && tries) return setTimeout(find, 100, tries - 1);
  picture.remove();
  if (!box) return;
  const name = () => box.querySelectorAll('.noUi-handle').forEach((handle) => {{
    const row = handle.closest('.widget-inline-hbox');
    const label = row?.querySelector('.widget-label')?.textContent;
    const readout = row?.querySelector('.widget-readout');
    const set = (element, attribute, text) => {{
      if (text && element.getAttribute(attribute) !== text) element.setAttribute(attribute, text);
    }};
    set(handle, 'aria-label', label);
    if (!readout) return;
    set(handle, 'aria-valuetext', readout.textContent);
    if (readout.isContentEditable) set(readout, 'role', 'textbox');
    set(readout, 'aria-label', label && label + ', as a number');
  }});
  const kinds = {{ childList: true, characterData: true, attributes: true, attributeFilter: ['aria-valuetext'] }};
  new MutationObserver(name).observe(box, {{ subtree: true, ...kinds }});
  name();
}};
find(600);
"""


def framed(title: str, *children: ipywidgets.Widget) -> ipywidgets.VBox:
    """A whole widget: its title, its controls and its answer in a frame."""
    heading = ipywidgets.HTML(
        f'<style>{STYLE}</style><img src="data:," alt="" style="display: none;" onerror="{html.escape(NAMES)}">'
        f'<div style="font-size: 1.35em; font-weight: bold; margin: 2px;">{html.escape(title)}</div>'
        f'<div class="mmlesson-gone" role="alert"><span aria-hidden="true">⚠</span> {GONE}</div>'
    )
    box = ipywidgets.VBox([heading, *children], layout=LAYOUT)
    box.add_class(FRAME)
    return box
