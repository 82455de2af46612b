// An extension of a presenter's JupyterLab: large type, the key T, the buttons of the marks.
// JupyterLab loads an extension as a container with `init` and `get` (webpack's module federation); this one is so
// small that it needs no build: https://jupyterlab.readthedocs.io/en/stable/extension/extension_dev.html
(() => {
  const COMMAND = 'mmlesson:run-truly';
  const STYLE = `
    body { --jp-code-font-size: 20px; --jp-content-font-size1: 24px; --jp-content-font-size0: 20px;
      --jp-content-font-size2: 27px; --jp-content-font-size3: 30px; --jp-content-font-size4: 34px;
      --jp-content-font-size5: 40px; --jp-ui-font-size1: 16px; --jp-code-line-height: 1.4; }
    .jp-cell-toolbar, .jp-enclosed-cell-toolbar { display: none; }
    .jp-OutputArea-output img, .jp-OutputArea-output svg { zoom: 1.4; }
    .mmlesson-widget img, .mmlesson-widget svg { zoom: 1.3; }
    .jp-NotebookPanel { --jp-notebook-max-width: none; --jp-cell-prompt-width: 84px; }
    .jp-InputPrompt, .jp-OutputPrompt { font-size: 16px; }
    .jp-RenderedHTMLCommon { line-height: 1.5; }
    .mmlesson-widget { --jp-widgets-font-size: 20px; --jp-widgets-inline-height: 38px;
      --jp-widgets-inline-label-width: 160px; font-size: 20px; padding-left: 28px !important; }
    .mmlesson-widget .jupyter-button { font-size: 20px; padding: 4px 18px; }
    .mmlesson-replayed { font-family: var(--jp-ui-font-family); font-size: 18px; line-height: 1.5; margin: 4px 0 8px;
      padding: 4px 12px; border-left: 6px solid #b35c00; background: #fff4e0; color: #3d2000; }
    .mmlesson-runs { font-family: var(--jp-ui-font-family); font-size: 18px; margin: 4px 0; color: #0b3d73; }
    .mmlesson-runs progress { width: 260px; height: 16px; vertical-align: middle; margin-left: 8px; }
    .mmlesson-replayed button { font: inherit; margin: 0 8px; padding: 1px 12px; cursor: pointer; color: #3d2000;
      background: #fff; border: 2px solid #b35c00; border-radius: 4px; }
    .mmlesson-replayed button:focus-visible { outline: 3px solid #1c6dd0; outline-offset: 2px; }
    .mmlesson-replayed kbd { font-weight: bold; border: 1px solid #b35c00; border-radius: 3px; padding: 0 6px; }`;

  // The mark stands in the model of a cell's outputs, so it is found also where the cell is not drawn.
  const isReplayed = cell => {
    const outputs = cell.model.type === 'code' ? cell.model.outputs : { length: 0 };
    for (let place = 0; place < outputs.length; place++) {
      if (outputs.get(place).metadata.mmlesson?.replayed) return true;
    }
    return false;
  };

  // The replayed cell that the key means: the active one, or the nearest one above it, or the last one.
  const meant = notebook => {
    const replayed = notebook.widgets.map(isReplayed);
    const above = replayed.lastIndexOf(true, notebook.activeCellIndex);
    return above >= 0 ? above : replayed.lastIndexOf(true);
  };

  // Keep the outputs of a cell in sight while they grow; returns a function that ends it.
  const follow = cell => {
    const area = cell.outputArea?.node;
    if (!area) return () => undefined;
    const watcher = new ResizeObserver(() => area.scrollIntoView({ block: 'nearest' }));
    watcher.observe(area);
    return () => watcher.disconnect();
  };

  const activate = app => {
    const style = document.createElement('style');
    style.textContent = STYLE;
    document.head.append(style);

    app.commands.addCommand(COMMAND, {
      label: 'Run the Replayed Cell Truly',
      execute: async ({ index } = {}) => {
        const notebook = app.shell.currentWidget?.content;
        if (!notebook?.widgets || notebook.activeCellIndex === undefined) return;
        const place = index ?? meant(notebook);
        if (place < 0) return;
        notebook.deselectAll();
        notebook.activeCellIndex = place;
        const stop = follow(notebook.widgets[place]);
        await app.commands.execute('notebook:run-cell');
        setTimeout(stop, 1000); // the last outputs are drawn by then
      }
    });
    app.commands.addKeyBinding({
      command: COMMAND,
      keys: ['T'],
      selector: '.jp-Notebook.jp-mod-commandMode:not(.jp-mod-readWrite) :focus:not(:read-write)'
    });
    document.addEventListener('click', event => {
      // what "Start" and "Draw" begin is watched: the widget with its picture comes into sight
      event.target.closest?.('.mmlesson-widget .jupyter-button.mod-primary')
        ?.closest('.mmlesson-widget').scrollIntoView({ block: 'start', behavior: 'smooth' });
      const button = event.target.closest?.('[data-mmlesson-truly]');
      const notebook = button && app.shell.currentWidget?.content;
      const index = notebook?.widgets?.findIndex(cell => cell.node.contains(button)) ?? -1;
      if (index >= 0) void app.commands.execute(COMMAND, { index });
    });
  };

  const plugin = { id: 'mmlesson-present:page', autoStart: true, activate };
  const extensions = (window._JUPYTERLAB = window._JUPYTERLAB || {});
  extensions['mmlesson-present'] = {
    init: () => undefined,
    get: () => Promise.resolve(() => ({ __esModule: true, default: plugin }))
  };
})();
