// tinymae in this browser, in place of the server: Python and NumPy from Pyodide, and the package from tinymae.zip. The page
// (`python -m tinymae play --static FOLDER`) loads this file before app.js; the file then starts itself once more as a worker, so
// that the page stays alive while Python computes.
if (globalThis.document) startWorker();
else answerQuestions();

// In the page: askPyodide(name, question, language), as the server has them, resolves to the answer's JSON.
function startWorker() {
  const url = new URL(document.querySelector("meta[name=pyodide]").content, location.href).href;
  const worker = new Worker(new URL("pyodide.js", location.href), {type: "module"});
  const waiting = new Map();
  let asked = 0, lost = null;
  const settle = (answer) => {
    waiting.get(answer.number)?.(answer.json);
    waiting.delete(answer.number);
  };
  worker.addEventListener("message", (event) => settle(event.data));
  worker.addEventListener("error", (event) => {                 // it could not start at all
    lost = JSON.stringify({error: event.message || "pyodide.js"});
    for (const number of [...waiting.keys()]) settle({number, json: lost});
  });
  worker.postMessage({url});
  window.askPyodide = (name, question, language) => new Promise((resolve) => {
    if (lost) return resolve(lost);
    asked += 1;
    waiting.set(asked, resolve);
    worker.postMessage({number: asked, name, question, language});
  });
}

// In the worker: the first message says where Pyodide is, each of the others is a question. They are answered in their order.
function answerQuestions() {
  let python = null;
  self.addEventListener("message", async (event) => {
    const {url, number, name, question, language} = event.data;
    if (url) {
      python = loadPython(url);
      python.catch(() => null);                                 // every question will say it
      return;
    }
    try {
      self.postMessage({number, json: (await python)(name, question, language)});
    } catch (error) {                                           // of a traceback, the last line says what is wrong
      const line = String(error.message ?? error).trim().split("\n").at(-1);
      self.postMessage({number, json: JSON.stringify({error: line})});
    }
  });
}

// A function (name, question, language) -> answer; question and answer are JSON texts.
async function loadPython(url) {
  const folder = url.endsWith("/") ? url : `${url}/`;
  const [{loadPyodide}, archive] = await Promise.all([import(`${folder}pyodide.mjs`), fetch("tinymae.zip")]);
  if (!archive.ok) throw new Error(`tinymae.zip: ${archive.status}`);
  const pyodide = await loadPyodide({indexURL: folder});
  await pyodide.loadPackage("numpy", {messageCallback: () => null});
  pyodide.unpackArchive(await archive.arrayBuffer(), "zip");
  const api = pyodide.pyimport("tinymae.play.api");
  const models = api.shipped_models();
  return (name, question, language) => api.answer_json(name, question, models, language);
}
